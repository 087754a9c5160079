// A turn of an agent as a prompt and its constraint, and the model's text taken apart again: the
// same whether a session of one's own generates between them, or a slot of a server.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat/agent.h"
#include "chat/chat_model.h"
#include "chat/conversation.h"
#include "chat/generate.h"
#include "chat/tool_calls.h"

namespace sluice::chat {

// For a template that knows neither calls nor results: both become text, and tools (OpenAI's list;
// null: none) are described in the system prompt, which is made where there is none.
std::vector<Message> messages_without_tools(std::vector<Message> messages,
                                            const OrderedJson& tools);

struct TurnPrompt {
  std::vector<uint32_t> tokens;
  std::string text;
  std::optional<tokenizer::Constraint> constraint;
};

// Immutable.
class TurnRenderer {
 public:
  // model has a chat template and outlives this. variables: of the template, as JSON texts.
  TurnRenderer(const ChatModel& model, std::map<std::string, std::string> variables);

  const ToolSyntax& syntax() const { return syntax_; }
  // For GenerateOptions::shown.
  const std::vector<uint32_t>& shown() const { return shown_; }
  // Errors: parse_messages'; the template's; the constraint's.
  Result<TurnPrompt> render(const AgentTurn& turn) const;

 private:
  Result<std::optional<tokenizer::Constraint>> constraint(const AgentTurn& turn,
                                                          std::string_view prompt) const;

  const ChatModel& model_;
  const std::map<std::string, std::string> variables_;
  const ToolSyntax syntax_;
  const std::vector<uint32_t> shown_;
};

// One thread, one turn.
class TurnReader {
 public:
  TurnReader(const ToolSyntax& syntax, std::string_view prompt, const OrderedJson& tools,
             const OnAgentText& on_text)
      : parser_(syntax, prompt, tools), on_text_(on_text) {}

  // False once nobody wants more of the text.
  bool feed(std::string_view piece) { return take(parser_.feed(piece)); }
  AgentAnswer finish(Finish how, size_t prompt_tokens, size_t tokens);

 private:
  bool take(const std::vector<AnswerPart>& parts);

  ToolCallParser parser_;
  const OnAgentText on_text_;
  AgentAnswer answer_;
};

}  // namespace sluice::chat
