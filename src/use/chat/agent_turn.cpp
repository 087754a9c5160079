#include "chat/agent_turn.h"

#include <utility>

namespace sluice::chat {

std::vector<Message> messages_without_tools(std::vector<Message> messages,
                                            const OrderedJson& tools) {
  for (Message& message : messages) {
    for (const MessageCall& call : std::exchange(message.tool_calls, {}))
      message.content += ToolSyntax::written(call.name, call.arguments);
    if (message.role != Role::kTool) continue;
    message.role = Role::kUser;
    message.content = ToolSyntax::written_result(message.name, message.content);
  }
  if (tools.is_null()) return messages;
  const bool has_system = !messages.empty() && (messages[0].role == Role::kSystem ||
                                                messages[0].role == Role::kDeveloper);
  if (!has_system) messages.insert(messages.begin(), {.role = Role::kSystem});
  std::string& system = messages[0].content;
  system += (system.empty() ? "" : "\n\n") + ToolSyntax::describe(tools);
  return messages;
}

TurnRenderer::TurnRenderer(const ChatModel& model, std::map<std::string, std::string> variables)
    : model_(model),
      variables_(std::move(variables)),
      syntax_(ToolSyntax::of_template(model.chat_template->source(true))),
      shown_(syntax_.shown_tokens(model.tokenizer)) {}

Result<TurnPrompt> TurnRenderer::render(const AgentTurn& turn) const {
  SLUICE_ASSIGN(std::vector<Message> messages, parse_messages(turn.messages, "messages"));
  tokenizer::ChatInput input;
  input.variables = variables_;
  if (!syntax_.in_template())
    messages = messages_without_tools(std::move(messages), turn.tools);
  else if (!turn.tools.is_null())
    input.tools = dump_json(turn.tools);
  TurnPrompt prompt;
  SLUICE_ASSIGN(prompt.tokens,
                render_conversation(model_, messages, std::move(input), &prompt.text));
  SLUICE_ASSIGN(prompt.constraint, constraint(turn, prompt.text));
  return prompt;
}

Result<std::optional<tokenizer::Constraint>> TurnRenderer::constraint(
    const AgentTurn& turn, std::string_view prompt) const {
  std::optional<tokenizer::Constraint> constraint;
  if (!turn.words.empty()) {
    SLUICE_ASSIGN(constraint, tokenizer::Constraint::choices(model_.tokenizer, turn.words));
  } else if (!turn.forced_tool.empty()) {
    const ToolChoice choice{ToolChoice::Mode::kNamed, turn.forced_tool, false};
    SLUICE_ASSIGN(constraint, syntax_.constraint(model_.tokenizer, turn.tools, choice, prompt));
  } else if (!turn.tools.is_null()) {
    SLUICE_ASSIGN(constraint, syntax_.own_calls(model_.tokenizer, turn.tools, true, prompt));
  }
  return constraint;
}

bool TurnReader::take(const std::vector<AnswerPart>& parts) {
  using Kind = AnswerPart::Kind;
  bool going_on = true;
  for (const AnswerPart& part : parts) {
    if (part.kind == Kind::kContent || part.kind == Kind::kReasoning) {
      const bool reasoning = part.kind == Kind::kReasoning;
      (reasoning ? answer_.reasoning : answer_.text) += part.text;
      going_on = on_text_(part.text, reasoning) && going_on;
    }
    if (part.kind == Kind::kCall) answer_.calls.push_back({part.id, part.name, ""});
    // Of a call that was cut off the arguments stay empty, and it is refused as such.
    if (part.kind == Kind::kCallEnd && part.index < answer_.calls.size())
      answer_.calls[part.index].arguments = part.text;
  }
  return going_on;
}

AgentAnswer TurnReader::finish(Finish how, size_t prompt_tokens, size_t tokens) {
  (void)take(parser_.finish());
  answer_.prompt_tokens = prompt_tokens;
  answer_.generated_tokens = tokens;
  if (how == Finish::kCancelled) answer_.finish = "cancelled";
  if (how == Finish::kLength || how == Finish::kContext) answer_.finish = "length";
  return std::move(answer_);
}

}  // namespace sluice::chat
