// What is the same in every system's sandbox: the environment, and the attempt to start it.
#include "chat/tools/sandbox.h"

#include "chat/tools/process.h"
#include "chat/visible_text.h"

namespace sluice::chat {

std::vector<std::string> sandbox_environment(const std::string& folder) {
  return {"PATH=/usr/bin:/bin", "HOME=" + folder, "LANG=C.UTF-8", "TERM=dumb", "TMPDIR=/tmp"};
}

Status probe_sandbox(const std::string& folder) {
  SLUICE_ASSIGN(const auto argv, sandboxed(folder, {"true"}, {}));
  SLUICE_ASSIGN(const ProcessOutcome outcome,
                run_process(argv, sandbox_environment(folder), {.seconds = 10}, nullptr));
  if (outcome.exit_code == 0 && !outcome.timed_out) return {};
  return fail(ErrorCode::kUnsupported,
              "the sandbox does not start, so the shell is off: {}; it needs user namespaces "
              "(sysctl kernel.unprivileged_userns_clone, or AppArmor's setting)",
              visible_text(outcome.output));
}

}  // namespace sluice::chat
