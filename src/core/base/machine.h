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

// "Linux 6.1.0 x86_64", "Darwin 24.1.0 arm64".
std::string system_name();
// "Apple M3 Max"; empty when the system does not say.
std::string processor_name();

}  // namespace sluice
