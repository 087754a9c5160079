#include "chat/answer_form.h"

#include "base/json.h"
#include "chat/reasoning.h"

namespace sluice::chat {

std::string lark_regex(std::string_view expression) {
  std::string text = "/";
  for (size_t at = 0; at < expression.size(); ++at) {
    if (expression[at] == '\\' && at + 1 < expression.size()) {
      text += expression.substr(at++, 2);
    } else if (expression[at] == '/') {
      text += "\\/";
    } else if (expression[at] == '\n') {
      text += "\\n";
    } else {
      text += expression[at];
    }
  }
  return text + "/";
}

// The text itself stays, since its keys' order is that of the answer.
Result<std::string> lark_json(std::string_view schema) {
  SLUICE_ASSIGN(const Json json, parse_json(schema, "the JSON schema"));
  const bool whole = json == Json(true);
  if (!whole && !json.is_object())
    return fail(ErrorCode::kInvalidArgument, "the JSON schema: it should be a JSON object");
  if (json.contains("x-guidance"))
    return fail(ErrorCode::kUnsupported, "the JSON schema: x-guidance is not supported");
  const Json settings = {{"whitespace_pattern", tokenizer::kJsonWhitespace}};
  const bool empty = whole || json.empty();
  return "%json {\"x-guidance\": " + dump_json(settings) +
         (empty ? "}" : "," + std::string(schema.substr(schema.find('{') + 1)));
}

std::string thinking_rule(std::string_view prompt) {
  const std::string_view close = open_thinking(prompt);
  if (close.empty()) return "";
  std::string mark;
  for (const char c : close) mark += std::string(c == '[' || c == ']' ? "\\" : "") + c;
  return "think: thought gap?\nthought[lazy]: " + lark_regex("(.|\n)*" + mark) +
         "\ngap: /[ \\n]{1,4}/\n";
}

Result<tokenizer::Constraint> constrain_answer(const tokenizer::Tokenizer& tokenizer,
                                               const AnswerForm& form, std::string_view prompt) {
  using tokenizer::Constraint;
  const std::string think = thinking_rule(prompt);
  switch (form.kind) {
    case AnswerForm::Kind::kLark: return Constraint::lark(tokenizer, form.text);
    case AnswerForm::Kind::kRegex:
      if (think.empty()) return Constraint::regex(tokenizer, form.text);
      return Constraint::lark(
          tokenizer, "start: think answer\nanswer: " + lark_regex(form.text) + "\n" + think);
    default: break;
  }
  const bool object = form.kind == AnswerForm::Kind::kObject;
  if (think.empty())
    return object ? Constraint::json_object(tokenizer)
                  : Constraint::json_schema(tokenizer, form.text);
  SLUICE_ASSIGN(const std::string json, lark_json(object ? R"({"type": "object"})" : form.text));
  return Constraint::lark(tokenizer, "start: think answer\nanswer: " + json + "\n" + think);
}

}  // namespace sluice::chat
