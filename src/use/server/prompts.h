// From a request to what its model continues: tokens, their text, and what the answer has to be.
// Needs nothing but the model, so that it may run on any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/requests.h"
#include "server/served_model.h"
#include "tokenizer/constraint.h"

namespace sluice::server {

struct Prompt {
  std::vector<uint32_t> tokens;
  std::string text;
  std::optional<tokenizer::Constraint> constraint;
};

// Errors: the template's and tokenizer's; kInvalidArgument for forms that cannot be enforced.
// Thread-safe.
Result<Prompt> chat_prompt(const ServedModel& model, const ChatRequest& request);
Result<Prompt> text_prompt(const ServedModel& model, const PromptText& text,
                           const std::optional<chat::AnswerForm>& form);

}  // namespace sluice::server
