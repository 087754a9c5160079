// One request to an agent: the model answers or calls a tool, somebody approves, the tool runs, the
// model reads what came out and goes on, until it answers. How text is generated is the caller's
// business (a session of its own, or a slot of a server), as are terminals and connections.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ordered_json.h"
#include "base/thread.h"
#include "chat/tools/tool.h"

namespace sluice::chat {

struct AgentCall {
  std::string id, name;
  std::string arguments;  // as the model wrote them
};

// What the model is asked for next.
struct AgentTurn {
  OrderedJson messages;  // OpenAI's form
  OrderedJson tools;     // OpenAI's list; null: none
  // Not empty: the answer is one of these words and nothing else (tokenizer::Constraint::choices).
  std::vector<std::string> words = {};
  // Not empty: the answer is one call of this tool (ToolSyntax::constraint, kNamed).
  std::string forced_tool = {};
};

struct AgentAnswer {
  std::string text, reasoning;
  std::vector<AgentCall> calls;
  std::string finish = "stop";  // "length" when it was cut off
  size_t prompt_tokens = 0, generated_tokens = 0;
};

using OnAgentText = std::function<bool(std::string_view delta, bool reasoning)>;
using AgentGenerate =
    std::function<Result<AgentAnswer>(const AgentTurn& turn, const OnAgentText& on_text)>;

struct AgentRequest {
  // Counts a run's calls: the model's own ids may come again.
  std::string id;
  std::string tool, function;
  std::string arguments;
  std::string shown;  // what would be done, printable: control characters are escaped
  ToolEffect effect = ToolEffect::kRuns;
  bool needs_approval = true;
};

struct AgentResult {
  std::string id;
  bool ok = false;
  std::string text;  // printable, capped
};

struct AgentCallbacks {
  OnAgentText on_text;  // false ends the run
  // Called for every request; its answer counts only where needs_approval. May wait for long.
  std::function<bool(const AgentRequest&)> on_tool_request;
  std::function<void(const AgentResult&)> on_tool_result;
};

// What is done without asking.
struct AgentPolicy {
  bool read_only = false;          // ToolEffect::kReads
  std::vector<std::string> tools;  // all of what these tools do, by Tool::name
};

// Of a tool's output, so that the model can read it and go on: a quarter of the context at three
// bytes a token, within bounds.
size_t output_bytes_for(size_t context_tokens);

struct AgentOptions {
  size_t steps_max = 16;             // answers of the model
  size_t calls_max = 32;             // of tools, all steps together
  size_t output_bytes_max = 16'384;  // of one tool's output that the model reads
  bool native_tools = true;          // the template knows tools; else one word is chosen first
  AgentPolicy policy;
  const CancelToken* cancel = nullptr;
};

struct AgentRun {
  std::string text;           // the last answer
  std::string finish_reason;  // "stop", "length", "steps", "cancelled"
  size_t steps = 0, calls = 0;
  size_t prompt_tokens = 0, generated_tokens = 0;
  std::vector<ToolSource> sources;
  Json messages;  // those given, and all that were added
};

// One thread.
class Agent {
 public:
  // tools: those allowed; they outlive this.
  Agent(AgentOptions options, std::vector<Tool*> tools, AgentGenerate generate);

  // Errors: the generation's. What a tool fails with is told to the model.
  Result<AgentRun> run(const Json& messages, const AgentCallbacks& callbacks);

 private:
  Result<AgentAnswer> ask(const AgentRun& run, const AgentCallbacks& callbacks);
  Result<AgentAnswer> route(AgentTurn turn, const AgentCallbacks& callbacks);
  void answer_calls(const AgentAnswer& answer, const AgentCallbacks& callbacks, AgentRun& run);
  AgentResult call(const AgentCall& call, const AgentCallbacks& callbacks, AgentRun& run);
  bool cancelled() const { return options_.cancel != nullptr && options_.cancel->cancelled(); }

  const AgentOptions options_;
  const std::vector<Tool*> tools_;
  const AgentGenerate generate_;
  OrderedJson functions_;  // of all tools
};

// A tool's output as the model reads it: between marks that it cannot close, said to be no
// instruction, whole characters of at most bytes_max.
std::string untrusted_text(std::string_view origin, std::string_view text, size_t bytes_max);

}  // namespace sluice::chat
