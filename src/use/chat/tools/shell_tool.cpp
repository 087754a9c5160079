// The function of the tool "shell", and its outcome as text.
#include "chat/tools/shell_tool.h"

#include <unistd.h>

#include "chat/tools/function.h"
#include "chat/tools/shell_words.h"

namespace sluice::chat {
namespace {

std::string outcome_text(const ProcessOutcome& outcome, const ProcessLimits& limits) {
  std::string text = outcome.output;
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  if (outcome.output_cut) text += fmt::format("(output cut at {} bytes)\n", limits.output_bytes);
  if (outcome.timed_out) text += fmt::format("(ended after {} s)\n", limits.seconds);
  if (outcome.too_many)
    text += fmt::format("(ended with more than {} processes)\n", limits.processes);
  if (outcome.cancelled) text += "(interrupted)\n";
  return text + fmt::format("exit code {}", outcome.exit_code);
}

}  // namespace

OrderedJson ShellTool::functions() const {
  return OrderedJson::array({function_json(
      "run_command",
      "Runs one command in the work folder, without network, and returns its output and exit code.",
      {{"command", "the command line"}}, {})});
}

Result<ToolPlan> ShellTool::plan(std::string_view, const Json& arguments) {
  SLUICE_ASSIGN(const std::string command, text_argument(arguments, "command", kCommandBytesMax));
  if (command.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "the command holds a null character");
  const auto words = shell_words(command);
  const std::vector<std::string> argv =
      words ? *words : std::vector<std::string>{"/bin/sh", "-c", command};
  SLUICE_ASSIGN(auto confined, sandboxed(options_.folder, argv, options_.sandbox));
  ToolPlan plan;
  plan.effect = ToolEffect::kRuns;
  plan.shown = (words ? "$ " : "(by /bin/sh) $ ") + command;
  plan.run = [options = options_,
              confined = std::move(confined)](const CancelToken* cancel) -> Result<ToolOutput> {
    ProcessLimits limits = options.process;
    // The sandbox's own limit is one that the kernel exempts root from.
    if (::geteuid() == 0) limits.processes = options.sandbox.processes;
    SLUICE_ASSIGN(const ProcessOutcome outcome,
                  run_process(confined, sandbox_environment(options.folder), limits, cancel));
    return ToolOutput{outcome_text(outcome, limits), {}};
  };
  return plan;
}

}  // namespace sluice::chat
