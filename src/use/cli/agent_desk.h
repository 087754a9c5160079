// Where an agent and its user meet: what the agent writes, wants to do and has done is shown and
// written down, and the user approves. docs/agent.md says what is asked.
#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/agent_tools.h"
#include "cli/answer_printer.h"

namespace sluice::cli {

// Each line behind a margin, and what goes on beyond so many columns behind another: nothing of a
// model's text can pass for a line of ours. text: visible (chat::visible_text).
std::string with_margin(std::string_view text, size_t columns);

// One thread.
class AgentDesk {
 public:
  // markdown: answers are drawn, where a terminal shows them.
  AgentDesk(Context& context, const AgentArguments& arguments, Reasoning reasoning);

  // Tools and transcript, at the first call. Errors: make_tools'; kIo for the transcript.
  Status open();
  const Tools& tools() const { return *tools_; }
  const AgentArguments& arguments() const { return arguments_; }

  // Around what a model writes in one turn. print: to where it is shown.
  void begin_turn(bool markdown, PrintText print);
  void end_turn();
  // cancel ends a question as a refusal.
  chat::AgentCallbacks callbacks(const CancelToken& cancel);
  void started(const Json& messages);
  void done(const chat::AgentRun& run);

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void event(const Json& json);
  bool text(std::string_view delta, bool reasoning);
  bool approve(const chat::AgentRequest& request, const CancelToken& cancel);
  void result(const chat::AgentResult& result);

  Context& context_;
  const AgentArguments& arguments_;
  const Reasoning reasoning_;
  const bool asks_;  // somebody is there to ask
  std::optional<Tools> tools_;
  std::unique_ptr<std::FILE, CloseFile> transcript_;
  std::optional<AnswerPrinter> printer_;
  PrintText print_;
  std::vector<std::string> always_;
};

}  // namespace sluice::cli
