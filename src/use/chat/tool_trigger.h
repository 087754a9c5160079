// Where a model begins a call by itself, in text that is free until then.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chat/reasoning.h"
#include "chat/tool_calls.h"

namespace sluice::chat {

// Fires at the mark that opens a block of calls, outside thinking; for kLlama and kHarmony, which
// have none, where the arguments of a tool begin. What is written of the call by then is taken of
// the constraint, which is ToolSyntax::constraint's for the same tools; where that does not allow
// it, the text stays free. One thread.
class CallTrigger : public tokenizer::Trigger {
 public:
  // prompt: what the model continues. names: of the tools. tokenizer outlives it.
  CallTrigger(const tokenizer::Tokenizer& tokenizer, const ToolSyntax& syntax, std::string prompt,
              std::vector<std::string> names);

  Result<bool> take(uint32_t token, tokenizer::Constraint& held) override;
  Result<std::unique_ptr<Trigger>> clone() const override;

 private:
  // A call's beginning, as the constraint has it: marks, and text between them.
  using Beginning = std::vector<std::string>;

  Result<bool> mark_found(tokenizer::Constraint& held);
  Result<bool> bare_call_found(tokenizer::Constraint& held);
  Result<bool> header_found(tokenizer::Constraint& held);
  Result<bool> begin(const Beginning& beginning, tokenizer::Constraint& held) const;
  bool known(std::string_view name) const;

  const tokenizer::Tokenizer& tokenizer_;
  const ToolSyntax syntax_;
  const std::string prompt_;
  const std::vector<std::string> names_;
  tokenizer::Decoder decoder_;
  ReasoningSplitter splitter_;
  std::vector<uint32_t> tokens_;  // all so far, for clones
  std::string text_;              // that may still become a call's beginning
  bool in_body_ = false;          // of a message of harmony's
  bool begun_ = false;            // there was an answer that begins with no call; kLlama
};

}  // namespace sluice::chat
