// Ctrl-C while a model writes: ends the answer, not the program.
#pragma once

#include <csignal>

#include "base/thread.h"

namespace sluice::cli {

// From construction to destruction the first SIGINT sets the token and the second ends the program;
// afterwards SIGINT does what it did before. One at a time.
class InterruptScope {
 public:
  explicit InterruptScope(CancelToken& token);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct sigaction before_{};
};

}  // namespace sluice::cli
