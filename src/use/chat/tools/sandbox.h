// The command line that confines a program: no network, nothing written but in the work folder (and
// a scratch folder of its own), no view of other processes, a bare environment. What confines is
// the system's own: bubblewrap on Linux, sandbox-exec on macOS.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace sluice::chat {

struct SandboxLimits {
  uint64_t memory_bytes = 2ull << 30;  // of address space, each process
  uint64_t file_bytes = 256ull << 20;  // of one file
  unsigned processes = 128;            // of the user in the sandbox; for root: ProcessLimits
  unsigned open_files = 256;
  unsigned cpu_seconds = 60;  // each process
};

// argv: the program as found on the sandbox's PATH, and its arguments. folder: absolute, without
// links. The result begins with an absolute path and is to be run with sandbox_environment().
// Errors: kUnsupported where the system has nothing to confine with.
Result<std::vector<std::string>> sandboxed(const std::string& folder,
                                           const std::vector<std::string>& argv,
                                           const SandboxLimits& limits);
std::vector<std::string> sandbox_environment(const std::string& folder);

// Runs `true` confined: kUnsupported with what lacks, and what to do, when that fails.
Status probe_sandbox(const std::string& folder);

}  // namespace sluice::chat
