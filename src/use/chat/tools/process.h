// Runs a program to its end and keeps what it writes: bounded in time and output, with no input, no
// terminal and no descriptors of ours.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread.h"

namespace sluice::chat {

struct ProcessLimits {
  double seconds = 60;
  size_t output_bytes = 256 << 10;  // of both streams together; what comes behind is thrown away
  // At once, looked at now and then, for users whom the kernel limits in nothing; 0: no matter.
  unsigned processes = 0;
};

struct ProcessOutcome {
  int exit_code = 0;   // 128 and the signal's number for one that a signal ended
  std::string output;  // both streams as they came
  bool timed_out = false, output_cut = false, cancelled = false, too_many = false;
};

// argv[0] is an absolute path; the environment is exactly this one. The program leads a session and
// is killed with its group when time is up, or its processes are too many. Errors: kNotFound, kIo
// when it cannot be started.
Result<ProcessOutcome> run_process(const std::vector<std::string>& argv,
                                   const std::vector<std::string>& environment,
                                   const ProcessLimits& limits, const CancelToken* cancel);

}  // namespace sluice::chat
