// The tool "shell": one command, confined by the sandbox, without a shell where none is needed.
#pragma once

#include <string>

#include "chat/tools/process.h"
#include "chat/tools/sandbox.h"
#include "chat/tools/tool.h"

namespace sluice::chat {

struct ShellOptions {
  std::string folder;  // absolute, without links (WorkFolder::path)
  ProcessLimits process;
  SandboxLimits sandbox;
};

class ShellTool : public Tool {
 public:
  static constexpr size_t kCommandBytesMax = 16'384;

  explicit ShellTool(ShellOptions options) : options_(std::move(options)) {}

  std::string_view name() const override { return "shell"; }
  OrderedJson functions() const override;
  // Errors: also kUnsupported without a sandbox: nothing ever runs outside of one.
  Result<ToolPlan> plan(std::string_view function, const Json& arguments) override;

 private:
  const ShellOptions options_;
};

}  // namespace sluice::chat
