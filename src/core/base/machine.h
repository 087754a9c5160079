// What this machine is: memory, processor and system, as far as the operating system tells.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// Bytes; 0: not known, or no limit.
struct MemoryInfo {
  uint64_t total = 0;      // installed
  uint64_t available = 0;  // what programs could still take without swapping
  uint64_t limit = 0;      // a container's or service's own (cgroup)

  // The least of total and limit.
  uint64_t usable() const { return limit != 0 && limit < total ? limit : total; }
};

MemoryInfo detect_memory();

// What this process has in memory now: code, heap and stacks. 0 where the system does not say.
uint64_t resident_bytes();
// For a process whose phases need memory one after another: from now on what is freed goes back to
// the system soon, however much was once in use. Costs time where large memory comes and goes.
void return_memory_early();
// Gives what was freed, and is still kept for later, back now.
void return_freed_memory();
// Lets go of the program's code that has run so far, which comes again from its file, page by page,
// as it is needed: behind a start that ran much of it once. Where the system allows; thread-safe.
// Breakpoints that a debugger has set are lost.
void return_code_pages();

// "Linux 6.1.0 x86_64", "Darwin 24.1.0 arm64".
std::string system_name();
// "Apple M3 Max"; empty when the system does not say.
std::string processor_name();

}  // namespace sluice
