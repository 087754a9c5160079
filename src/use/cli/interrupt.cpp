#include "cli/interrupt.h"

#include <atomic>

namespace sluice::cli {
namespace {

// A signal handler can reach nothing else.
std::atomic<CancelToken*> current{nullptr};

extern "C" void on_generation_interrupt(int) {
  if (CancelToken* token = current.load()) token->cancel();
}

}  // namespace

InterruptScope::InterruptScope(CancelToken& token, SecondInterrupt second) {
  current.store(&token);
  struct sigaction action{};
  action.sa_handler = on_generation_interrupt;
  action.sa_flags =
      static_cast<int>(second == SecondInterrupt::kEndsProgram ? SA_RESETHAND : SA_RESTART);
  sigaction(SIGINT, &action, &before_);
}

InterruptScope::~InterruptScope() {
  sigaction(SIGINT, &before_, nullptr);
  current.store(nullptr);
}

}  // namespace sluice::cli
