#include "server/prompts.h"

#include "chat/agent_turn.h"

namespace sluice::server {
namespace {

// own: thinking that the model may open by itself.
Result<tokenizer::Constraint> constrain(const ServedModel& model, const chat::AnswerForm& form,
                                        std::string_view prompt,
                                        const chat::ThinkingMarks& own = {}) {
  auto constraint = chat::constrain_answer(model.chat.tokenizer, form, prompt, own);
  if (!constraint)
    return fail(ErrorCode::kInvalidArgument, "response_format: {}", constraint.error().message);
  return constraint;
}

}  // namespace

Result<Prompt> chat_prompt(const ServedModel& model, const ChatRequest& request) {
  using Mode = chat::ToolChoice::Mode;
  Prompt prompt;
  tokenizer::ChatInput input;
  input.variables = request.variables;
  const bool listed = model.syntax.in_template();
  if (listed && !request.tools.is_null()) input.tools = dump_json(request.tools);
  const auto messages =
      listed ? request.messages : chat::messages_without_tools(request.messages, request.tools);
  SLUICE_ASSIGN(prompt.tokens,
                chat::render_conversation(model.chat, messages, std::move(input), &prompt.text));
  const Mode mode = request.tool_choice.mode;
  if (mode == Mode::kRequired || mode == Mode::kNamed) {
    SLUICE_ASSIGN(prompt.constraint, model.syntax.constraint(model.chat.tokenizer, request.tools,
                                                             request.tool_choice, prompt.text));
  } else if (request.form) {
    const auto enabled = request.variables.find("enable_thinking");
    const bool thinks = enabled == request.variables.end() || enabled->second != "false";
    SLUICE_ASSIGN(prompt.constraint,
                  constrain(model, *request.form, prompt.text,
                            thinks ? model.syntax.thinking() : chat::ThinkingMarks{}));
  } else if (!request.tools.is_null()) {
    SLUICE_ASSIGN(prompt.constraint,
                  model.syntax.own_calls(model.chat.tokenizer, request.tools,
                                         request.tool_choice.parallel, prompt.text));
  }
  return prompt;
}

Result<Prompt> text_prompt(const ServedModel& model, const PromptText& text,
                           const std::optional<chat::AnswerForm>& form) {
  const tokenizer::Tokenizer& tokenizer = model.chat.tokenizer;
  Prompt prompt;
  if (const auto* tokens = std::get_if<std::vector<uint32_t>>(&text)) {
    prompt.tokens = *tokens;
    SLUICE_ASSIGN(prompt.text, tokenizer.decode(*tokens, false));
  } else {
    prompt.text = std::get<std::string>(text);
    SLUICE_ASSIGN(prompt.tokens, tokenizer.encode(prompt.text, true));
  }
  if (form) {
    SLUICE_ASSIGN(prompt.constraint, constrain(model, *form, {}));
  }
  return prompt;
}

}  // namespace sluice::server
