// What an answer is asked to be, as a constraint on all that a model writes: models that think do
// so first, and only what follows has the form.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "chat/reasoning.h"
#include "tokenizer/constraint.h"

namespace sluice::chat {

struct AnswerForm {
  enum class Kind : uint8_t { kObject, kSchema, kRegex, kLark };
  Kind kind = Kind::kObject;
  std::string text = {};  // the schema, the expression, the grammar
};

// prompt: what the model continues; where it has opened a block of thinking, that is ended first.
// own: thinking that the model may open by itself, of which the prompt has not ended any yet;
// empty: none. A grammar (kLark) is taken as it is. Errors: Constraint's.
Result<tokenizer::Constraint> constrain_answer(const tokenizer::Tokenizer& tokenizer,
                                               const AnswerForm& form, std::string_view prompt,
                                               const ThinkingMarks& own = {});

// Thinking in a Lark grammar, as constrain_answer() has it.
struct ThinkingRule {
  std::string before;  // what goes ahead of the answer: "", "think" or "think?"
  std::string rules;   // "think: …\n", with what it needs
};
ThinkingRule thinking_rule(const tokenizer::Tokenizer& tokenizer, std::string_view prompt,
                           const ThinkingMarks& own);
// A mark in a Lark rule: one token where the vocabulary has it as a special one, else text.
std::string lark_mark(const tokenizer::Tokenizer& tokenizer, std::string_view mark);

// A regular expression in Lark's slashes.
std::string lark_regex(std::string_view expression);
// A schema in a Lark rule, with the settings that Constraint::json_schema has. schema: JSON text.
Result<std::string> lark_json(std::string_view schema);

}  // namespace sluice::chat
