#include "chat/tool_trigger.h"

#include <algorithm>

#include "chat/json_text.h"
#include "chat/overlap.h"
#include "chat/tool_heads.h"
#include "chat/tool_marks.h"

namespace sluice::chat {

CallTrigger::CallTrigger(const tokenizer::Tokenizer& tokenizer, const ToolSyntax& syntax,
                         std::string prompt, std::vector<std::string> names)
    : tokenizer_(tokenizer),
      syntax_(syntax),
      prompt_(std::move(prompt)),
      names_(std::move(names)),
      decoder_(tokenizer, true, syntax.shown_tokens(tokenizer)),
      splitter_(prompt_),
      in_body_(prompt_.ends_with(marks::kMessage)) {}

Result<std::unique_ptr<tokenizer::Trigger>> CallTrigger::clone() const {
  auto copy = std::make_unique<CallTrigger>(tokenizer_, syntax_, prompt_, names_);
  copy->tokens_ = tokens_;
  for (const uint32_t token : tokens_)
    if (auto piece = copy->decoder_.push(token); !piece) return std::unexpected(piece.error());
  copy->splitter_ = splitter_;
  copy->text_ = text_;
  copy->in_body_ = in_body_;
  copy->begun_ = begun_;
  return copy;
}

Result<bool> CallTrigger::take(uint32_t token, tokenizer::Constraint& held) {
  tokens_.push_back(token);
  SLUICE_ASSIGN(const std::string piece, decoder_.push(token));
  if (syntax_.family() == ToolFamily::kHarmony) {
    text_ += piece;
    return header_found(held);
  }
  for (const TextPart& part : splitter_.feed(piece))
    if (!part.thinking) text_ += part.text;
  if (syntax_.family() == ToolFamily::kLlama && !begun_) return bare_call_found(held);
  return mark_found(held);
}

bool CallTrigger::known(std::string_view name) const {
  return std::ranges::find(names_, name) != names_.end();
}

// Takes the beginning of the constraint; where that does not allow it, nothing.
Result<bool> CallTrigger::begin(const Beginning& beginning, tokenizer::Constraint& held) const {
  SLUICE_ASSIGN(tokenizer::Constraint copy, held.clone());
  for (const std::string& part : beginning) {
    const auto id = tokenizer_.id(part);
    const Status taken = id && tokenizer_.is_special(*id) ? copy.take(*id) : copy.take_text(part);
    if (!taken) return false;
  }
  held = std::move(copy);
  return true;
}

Result<bool> CallTrigger::mark_found(tokenizer::Constraint& held) {
  for (;;) {
    size_t first = std::string::npos;
    std::string_view mark;
    for (const ToolBlock& block : tool_blocks(syntax_.family())) {
      const size_t at = text_.find(block.open);
      if (at >= first) continue;
      first = at;
      mark = block.open;
    }
    if (mark.empty()) break;
    text_.erase(0, first + mark.size());
    SLUICE_ASSIGN(const bool begun, begin({std::string(mark), text_}, held));
    if (begun) return true;
  }
  size_t keep = 0;
  for (const ToolBlock& block : tool_blocks(syntax_.family()))
    keep = std::max(keep, overlap(text_, block.open));
  text_.erase(0, text_.size() - keep);
  return false;
}

Result<bool> CallTrigger::bare_call_found(tokenizer::Constraint& held) {
  const std::string_view text = trimmed(text_);
  if (text.empty()) return false;
  CallHead head;
  HeadFound found = HeadFound::kNo;
  if (text.starts_with('{')) found = find_head(syntax_.family(), text, head);
  if (found == HeadFound::kMore) return false;
  begun_ = true;
  if (found == HeadFound::kYes && known(head.name)) {
    SLUICE_ASSIGN(
        const bool begun,
        begin({ToolSyntax::bare_head(head.name), std::string(text.substr(head.end))}, held));
    if (begun) return true;
  }
  return mark_found(held);
}

// A header of a message to a tool is complete.
Result<bool> CallTrigger::header_found(tokenizer::Constraint& held) {
  for (;;) {
    const size_t start = in_body_ ? text_.find(marks::kStart) : 0;
    const size_t end = start == std::string::npos ? start : text_.find(marks::kMessage, start);
    if (end == std::string::npos) break;
    const Channel channel = read_header(std::string_view(text_).substr(start, end - start));
    text_.erase(0, end + marks::kMessage.size());
    in_body_ = true;
    if (!known(channel.function)) continue;
    SLUICE_ASSIGN(
        const bool begun,
        begin({std::string(marks::kChannel), "commentary to=functions." + channel.function + " ",
               std::string(marks::kConstrain), "json", std::string(marks::kMessage), text_},
              held));
    if (begun) return true;
  }
  // Of a body only the beginning of the next header is wanted.
  if (in_body_ && text_.find(marks::kStart) == std::string::npos)
    text_.erase(0, text_.size() - overlap(text_, marks::kStart));
  return false;
}

}  // namespace sluice::chat
