// Ctrl-C while a model writes: ends the answer, not the program.
#pragma once

#include <csignal>

#include "base/thread.h"

namespace sluice::cli {

enum class SecondInterrupt { kEndsProgram, kDoesNothing };

// From construction to destruction the first SIGINT sets the token; afterwards SIGINT does what it
// did before. One at a time.
class InterruptScope {
 public:
  explicit InterruptScope(CancelToken& token,
                          SecondInterrupt second = SecondInterrupt::kEndsProgram);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct sigaction before_{};
};

}  // namespace sluice::cli
