#include "chat/answer_form.h"

#include "base/json.h"

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

std::string lark_mark(const tokenizer::Tokenizer& tokenizer, std::string_view mark) {
  const auto id = tokenizer.id(mark);
  if (id && tokenizer.is_special(*id)) return fmt::format("<[{}]>", *id);
  return dump_json(Json(mark));
}

ThinkingRule thinking_rule(const tokenizer::Tokenizer& tokenizer, std::string_view prompt,
                           const ThinkingMarks& own) {
  std::string_view close = open_thinking(prompt);
  const bool opened = !close.empty();
  const size_t last = prompt.find_last_not_of(" \t\r\n");
  prompt = prompt.substr(0, last + 1);
  // Templates end it at once where thinking is switched off.
  if (!opened && (own.open.empty() || prompt.ends_with(own.close))) return {};
  if (!opened) close = own.close;
  std::string mark = lark_mark(tokenizer, close), thought;
  if (mark.starts_with('<')) {
    thought = "thought: /(.|\\n)*/ " + mark;
  } else {
    mark.clear();
    for (const char c : close) mark += std::string(c == '[' || c == ']' ? "\\" : "") + c;
    thought = "thought[lazy]: " + lark_regex("(.|\n)*" + mark);
  }
  const std::string begin = opened ? "" : lark_mark(tokenizer, own.open) + " ";
  return {opened ? "think" : "think?",
          "think: " + begin + "thought gap?\n" + thought + "\ngap: /[ \\n]{1,4}/\n"};
}

Result<tokenizer::Constraint> constrain_answer(const tokenizer::Tokenizer& tokenizer,
                                               const AnswerForm& form, std::string_view prompt,
                                               const ThinkingMarks& own) {
  using tokenizer::Constraint;
  const ThinkingRule think = thinking_rule(tokenizer, prompt, own);
  const auto behind = [&](const std::string& answer) {
    return Constraint::lark(
        tokenizer, "start: " + think.before + " answer\nanswer: " + answer + "\n" + think.rules);
  };
  switch (form.kind) {
    case AnswerForm::Kind::kLark: return Constraint::lark(tokenizer, form.text);
    case AnswerForm::Kind::kRegex:
      if (think.before.empty()) return Constraint::regex(tokenizer, form.text);
      return behind(lark_regex(form.text));
    default: break;
  }
  const bool object = form.kind == AnswerForm::Kind::kObject;
  if (think.before.empty())
    return object ? Constraint::json_object(tokenizer)
                  : Constraint::json_schema(tokenizer, form.text);
  SLUICE_ASSIGN(const std::string json, lark_json(object ? R"({"type": "object"})" : form.text));
  return behind(json);
}

}  // namespace sluice::chat
