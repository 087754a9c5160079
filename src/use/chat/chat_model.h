// A model with all it takes to talk to it: engine, tokenizer, chat template.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/engine.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace sluice::chat {

// Immutable, so that sessions of several threads may share it, as far as the engine allows.
struct ChatModel {
  std::shared_ptr<runtime::Engine> engine;
  tokenizer::Tokenizer tokenizer;
  // Absent where template_problem says why: kNotFound for base models, which have none.
  std::optional<tokenizer::ChatTemplate> chat_template;
  Error template_problem;
  std::vector<uint32_t> ends;  // ids that end a generation, sorted

  bool ends_text(uint32_t id) const;
};

// template_text: replaces the model's own template; empty: none does. Errors: the tokenizer's; a
// broken template of the model's own is one only when it is rendered.
Result<ChatModel> open_chat_model(std::shared_ptr<runtime::Engine> engine,
                                  std::string_view template_text);

// As a prompt's tokens, ready for generation. Errors: kUnsupported without a template; the
// template's own.
Result<std::vector<uint32_t>> render_prompt(const ChatModel& model,
                                            const tokenizer::ChatInput& input, std::string* text);

}  // namespace sluice::chat
