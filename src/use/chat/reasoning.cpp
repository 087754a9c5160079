#include "chat/reasoning.h"

#include <algorithm>
#include <utility>

#include "chat/overlap.h"

namespace sluice::chat {
namespace {

constexpr ThinkingMarks kMarks[] = {{"<think>", "</think>"},
                                    {"<thinking>", "</thinking>"},
                                    {"<seed:think>", "</seed:think>"},
                                    {"[THINK]", "[/THINK]"}};
constexpr std::string_view kBlank = " \t\r\n";

// What text's end may still turn out to be: a mark's beginning, or blank space before one.
size_t undecided(std::string_view text, std::string_view close) {
  size_t length = overlap(text, close);
  const std::string_view rest = text.substr(0, text.size() - length);
  const size_t last = rest.find_last_not_of(kBlank);
  length += rest.size() - (last == std::string_view::npos ? 0 : last + 1);
  return length;
}

}  // namespace

std::string_view open_thinking(std::string_view prompt) {
  const size_t last = prompt.find_last_not_of(kBlank);
  prompt = prompt.substr(0, last == std::string_view::npos ? 0 : last + 1);
  for (const ThinkingMarks& marks : kMarks)
    if (prompt.ends_with(marks.open)) return marks.close;
  return {};
}

ThinkingMarks template_thinking(std::string_view template_text) {
  for (const ThinkingMarks& marks : kMarks)
    if (template_text.contains(marks.open)) return marks;
  return {};
}

bool knows_thinking(std::string_view template_text) {
  constexpr std::string_view kOthers[] = {"enable_thinking", "reasoning_effort", "<|channel|>"};
  const auto has = [&](std::string_view mark) { return template_text.contains(mark); };
  return std::ranges::any_of(kMarks, has, &ThinkingMarks::open) ||
         std::ranges::any_of(kOthers, has);
}

ReasoningSplitter::ReasoningSplitter(std::string_view prompt) : close_(open_thinking(prompt)) {
  if (close_.empty()) return;
  thinking_ = trim_start_ = true;
  may_begin_ = false;
}

// Opens or closes a block where held_ has its mark; true when it did and more may follow.
bool ReasoningSplitter::take_mark() {
  if (!may_begin_) return false;
  const size_t start = held_.find_first_not_of(kBlank);
  if (start == std::string::npos) return false;
  const std::string_view text = std::string_view(held_).substr(start);
  bool possible = false;
  for (const ThinkingMarks& marks : kMarks) {
    if (text.starts_with(marks.open)) {
      held_.erase(0, start + marks.open.size());
      thinking_ = trim_start_ = true;
      may_begin_ = false;
      close_ = marks.close;
      return true;
    }
    possible |= marks.open.starts_with(text);
  }
  may_begin_ = possible;
  return false;
}

void ReasoningSplitter::release(size_t length, std::vector<TextPart>& parts) {
  std::string text = held_.substr(0, length);
  held_.erase(0, length);
  if (trim_start_) {
    text.erase(0, std::min(text.find_first_not_of(kBlank), text.size()));
    trim_start_ = text.empty();
  }
  if (text.empty()) return;
  if (!parts.empty() && parts.back().thinking == thinking_)
    parts.back().text += text;
  else
    parts.push_back({thinking_, std::move(text)});
}

std::vector<TextPart> ReasoningSplitter::feed(std::string_view piece) {
  std::vector<TextPart> parts;
  held_ += piece;
  take_mark();
  if (may_begin_) return parts;
  if (thinking_) {
    const size_t end = held_.find(close_);
    if (end == std::string::npos) {
      release(held_.size() - undecided(held_, close_), parts);
      return parts;
    }
    const size_t last = std::string_view(held_).substr(0, end).find_last_not_of(kBlank);
    const size_t kept = last == std::string::npos ? 0 : last + 1;
    const size_t skipped = end - kept + close_.size();
    release(kept, parts);
    held_.erase(0, skipped);
    thinking_ = false;
    trim_start_ = true;
  }
  release(held_.size(), parts);
  return parts;
}

std::vector<TextPart> ReasoningSplitter::finish() {
  std::vector<TextPart> parts;
  may_begin_ = false;
  release(held_.size(), parts);
  return parts;
}

}  // namespace sluice::chat
