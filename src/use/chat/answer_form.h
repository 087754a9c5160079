// What an answer is asked to be, as a constraint on all that a model writes: models that think do
// so first, and only what follows has the form.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "tokenizer/constraint.h"

namespace sluice::chat {

struct AnswerForm {
  enum class Kind : uint8_t { kObject, kSchema, kRegex, kLark };
  Kind kind = Kind::kObject;
  std::string text = {};  // the schema, the expression, the grammar
};

// prompt: what the model continues; where it has opened a block of thinking, that is ended first. A
// grammar (kLark) is taken as it is. Errors: Constraint's.
Result<tokenizer::Constraint> constrain_answer(const tokenizer::Tokenizer& tokenizer,
                                               const AnswerForm& form, std::string_view prompt);

// The rule of a Lark grammar for thinking that the prompt has opened, up to and with the mark that
// closes it: "think: …\n", with what it needs; empty where none is open.
std::string thinking_rule(std::string_view prompt);

// A regular expression in Lark's slashes.
std::string lark_regex(std::string_view expression);
// A schema in a Lark rule, with the settings that Constraint::json_schema has. schema: JSON text.
Result<std::string> lark_json(std::string_view schema);

}  // namespace sluice::chat
