// Calls in the stream of an answer. Arguments that are JSON are told as they come; another block of
// calls is kept until it is whole, then read by what its family's form is. What cannot be read is
// content as it stands.
#include <algorithm>
#include <optional>

#include "base/digest.h"
#include "chat/json_text.h"
#include "chat/overlap.h"
#include "chat/reasoning.h"
#include "chat/tool_bodies.h"
#include "chat/tool_heads.h"
#include "chat/tool_marks.h"

namespace sluice::chat {
namespace {

using Kind = AnswerPart::Kind;

constexpr std::string_view kBlank = " \t\r\n";
// Nine letters and digits, as Mistral's templates want them.
constexpr size_t kIdSize = 9;

// The same for the same prompt and number, and different for others.
std::string call_id(std::string_view prompt, size_t index) {
  constexpr std::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id;
  uint64_t left = digest_of(fmt::format("{} {}", index, prompt)).low;
  for (size_t at = 0; at < kIdSize; ++at, left /= kLetters.size())
    id += kLetters[left % kLetters.size()];
  return id;
}

}  // namespace

class ToolCallParser::State {
 public:
  State(const ToolSyntax& syntax, std::string_view prompt, const OrderedJson& tools)
      : family_(syntax.family()),
        tools_(tools),
        prompt_(prompt),
        splitter_(prompt),
        finds_calls_(tools.is_array() && !tools.empty()) {
    if (family_ != ToolFamily::kHarmony) return;
    const size_t start = prompt.rfind(marks::kStart);
    if (prompt.ends_with(marks::kMessage) && start != std::string_view::npos) {
      in_header_ = false;
      channel_ = read_header(prompt.substr(start));
    }
  }

  void feed(std::string_view piece, bool last) {
    if (family_ == ToolFamily::kHarmony) {
      held_ += piece;
      while (harmony_step(last)) {
      }
      return;
    }
    auto thought = splitter_.feed(piece);
    if (last)
      for (TextPart& part : splitter_.finish()) thought.push_back(std::move(part));
    for (const TextPart& part : thought) {
      if (part.thinking)
        parts_.push_back({.kind = Kind::kReasoning, .text = part.text});
      else
        held_ += part.text;
    }
    if (!finds_calls_) {
      content(std::exchange(held_, {}));
      return;
    }
    while (step(last)) {
    }
  }

  std::vector<AnswerPart> take_parts() { return std::exchange(parts_, {}); }
  size_t begun = 0, complete = 0;

 private:
  void content(std::string_view text) {
    if (text.empty()) return;
    if (!parts_.empty() && parts_.back().kind == Kind::kContent)
      parts_.back().text += text;
    else
      parts_.push_back({.kind = Kind::kContent, .text = std::string(text)});
    answered_ = true;
  }

  void begin_call(const std::string& given_id, const std::string& name) {
    const size_t index = begun++;
    std::string id = given_id.empty() ? call_id(prompt_, index) : given_id;
    parts_.push_back({.kind = Kind::kCall, .index = index, .id = std::move(id), .name = name});
    arguments_end_ = JsonExtent();
  }
  // More of the arguments of the call that has begun; how much of the text belongs to them.
  size_t more_arguments(std::string_view text) {
    const size_t size = arguments_end_.take(text);
    parts_.push_back(
        {.kind = Kind::kArguments, .text = std::string(text.substr(0, size)), .index = begun - 1});
    return size;
  }
  void end_call(std::string arguments) {
    ++complete;
    parts_.push_back({.kind = Kind::kCallEnd, .text = std::move(arguments), .index = begun - 1});
  }
  void lose_call(std::string written) {
    parts_.push_back({.kind = Kind::kCallLost, .text = std::move(written), .index = begun - 1});
    answered_ = true;
  }
  void call(const WrittenCall& written) {
    begin_call(written.id, written.name);
    more_arguments(written.arguments);
    end_call(written.arguments);
  }

  bool step(bool last) {
    if (block_ == nullptr) return outside(last);
    switch (stage_) {
      case Stage::kHead: return head(last);
      case Stage::kArguments: return arguments(last);
      case Stage::kObject: return object(last);
    }
    return false;
  }
  bool outside(bool last);
  bool head(bool last);
  bool arguments(bool last);
  bool object(bool last);
  void begin_block(const ToolBlock& block) {
    block_ = &block;
    stage_ = Stage::kHead;
    first_ = true;
  }
  size_t block_end() const {
    return block_->close.empty() ? std::string::npos : held_.find(block_->close);
  }
  void begin_arguments(const CallHead& head);
  void whole_block(size_t end);
  bool bare_json(bool last);
  bool known(std::string_view name) const;
  bool harmony_step(bool last);
  void harmony_text(size_t length);
  void harmony_arguments(std::string_view text);
  void harmony_end();

  const ToolFamily family_;
  const OrderedJson tools_;
  const std::string prompt_;
  ReasoningSplitter splitter_;
  const bool finds_calls_;
  std::vector<AnswerPart> parts_;
  std::string held_;  // not yet told; within a block, all behind its mark
  // Within a block: before a call's arguments, in them, or in the object around them.
  enum class Stage : uint8_t { kHead, kArguments, kObject };
  const ToolBlock* block_ = nullptr;
  Stage stage_ = Stage::kHead;
  bool first_ = true;  // no call of the block has been told
  bool in_object_ = false;
  JsonExtent arguments_end_;
  std::string before_;     // of the call, mark included
  std::string arguments_;  // so far
  bool answered_ = false;  // there was content
  bool in_header_ = true;  // harmony
  Channel channel_ = {};
  size_t told_ = 0;       // of arguments_; harmony
  bool calling_ = false;  // the channel's call has begun
};

// Tells content up to the next block, and keeps what may be a mark's beginning or blank before one.
bool ToolCallParser::State::outside(bool last) {
  if (family_ == ToolFamily::kLlama && !answered_ && begun == 0 && bare_json(last))
    return block_ != nullptr;
  size_t first = std::string::npos;
  for (const ToolBlock& block : tool_blocks(family_)) {
    const size_t at = held_.find(block.open);
    if (at >= first) continue;
    first = at;
    begin_block(block);
  }
  if (block_ != nullptr) {
    const std::string_view before = std::string_view(held_).substr(0, first);
    const size_t end = before.find_last_not_of(kBlank);
    content(before.substr(0, end == std::string_view::npos ? 0 : end + 1));
    held_.erase(0, first + block_->open.size());
    return true;
  }
  size_t keep = 0;
  if (!last) {
    for (const ToolBlock& block : tool_blocks(family_))
      keep = std::max(keep, overlap(held_, block.open));
    const std::string_view rest = std::string_view(held_).substr(0, held_.size() - keep);
    const size_t end = rest.find_last_not_of(kBlank);
    keep += rest.size() - (end == std::string_view::npos ? 0 : end + 1);
  }
  // Blank behind a call is no answer.
  const bool blank = begun > 0 && trimmed(held_).empty();
  if (!(last && blank)) content(std::string_view(held_).substr(0, held_.size() - keep));
  held_.erase(0, held_.size() - keep);
  return false;
}

bool ToolCallParser::State::known(std::string_view name) const {
  return std::ranges::any_of(tools_, [&](const OrderedJson& tool) {
    const OrderedJson* function = json_find(tool, "function");
    const OrderedJson* found = function == nullptr ? nullptr : json_find(*function, "name");
    return found != nullptr && *found == name;
  });
}

// Llama's calls are JSON without a mark, at an answer's very beginning. Where they do not begin
// with the name of a tool, whether they are calls shows only at the end. True: wait, or all is
// done, or a block has begun.
bool ToolCallParser::State::bare_json(bool last) {
  static constexpr ToolBlock kBare = {"", ""};
  const std::string_view text = trimmed(held_);
  if (text.empty()) return !last;
  if (!text.starts_with('{')) return false;
  CallHead head;
  if (find_head(family_, held_, head) == HeadFound::kYes && known(head.name)) {
    begin_block(kBare);
    begin_arguments(head);
    return true;
  }
  if (!last) return true;
  const auto calls = read_calls(family_, text, tools_);
  if (!calls) return false;
  for (const WrittenCall& written : *calls) call(written);
  held_.clear();
  return true;
}

void ToolCallParser::State::begin_arguments(const CallHead& head) {
  begin_call(head.id, head.name);
  before_ = (first_ ? std::string(block_->open) : "") + held_.substr(0, head.end);
  held_.erase(0, head.end);
  arguments_.clear();
  in_object_ = head.in_object;
  stage_ = Stage::kArguments;
}

bool ToolCallParser::State::head(bool last) {
  const size_t end = block_end();
  CallHead head;
  if (find_head(family_, std::string_view(held_).substr(0, end), head) == HeadFound::kYes) {
    begin_arguments(head);
    return true;
  }
  if (end == std::string::npos && !last) return false;
  whole_block(end);
  return true;
}

bool ToolCallParser::State::arguments(bool last) {
  if (!held_.empty()) {
    const size_t size = more_arguments(held_);
    arguments_ += held_.substr(0, size);
    held_.erase(0, size);
  }
  if (!arguments_end_.done() && !last) return false;
  if (!arguments_end_.done() || !object_text(arguments_)) {
    lose_call(before_ + arguments_);
    block_ = nullptr;
    return true;
  }
  end_call(arguments_);
  first_ = false;
  stage_ = in_object_ ? Stage::kObject : Stage::kHead;
  return true;
}

// Passes over what the object around the arguments has behind them.
bool ToolCallParser::State::object(bool last) {
  const size_t end = block_end();
  JsonExtent object(1);
  const size_t size = object.take(std::string_view(held_).substr(0, end));
  if (!object.done() && end == std::string::npos && !last) return false;
  if (object.done()) held_.erase(0, size);
  stage_ = Stage::kHead;
  return true;
}

// What no head was found in, up to the closing mark or to the end.
void ToolCallParser::State::whole_block(size_t end) {
  const ToolBlock block = *std::exchange(block_, nullptr);
  const std::string body = held_.substr(0, end);
  held_.erase(0, end == std::string::npos ? held_.size() : end + block.close.size());
  const bool named = block.open == "<function=";
  const std::string rest =
      first_ ? (named ? "<function=" : "") + body : std::string(left_behind_call(family_, body));
  if (!first_ && rest.empty()) return;
  if (const auto calls = read_calls(family_, rest, tools_)) {
    for (const WrittenCall& written : *calls) call(written);
    return;
  }
  if (!first_) return content(rest);
  content(block.open);
  content(body);
  if (end != std::string::npos) content(block.close);
}

bool ToolCallParser::State::harmony_step(bool last) {
  if (in_header_) {
    const size_t at = held_.find(marks::kMessage);
    if (at != std::string::npos) {
      channel_ = read_header(std::string_view(held_).substr(0, at));
      held_.erase(0, at + marks::kMessage.size());
      in_header_ = false;
      return true;
    }
    // A model that leaves the form altogether still answers.
    const std::string_view text = held_;
    const bool header = text.empty() || text.starts_with('<') || text.starts_with(" to=") ||
                        text.starts_with("assistant") || begun > 0 || answered_;
    if (header || !last) return false;
    content(std::exchange(held_, {}));
    return false;
  }
  size_t first = std::string::npos, size = 0;
  for (const std::string_view mark : {marks::kEnd, marks::kCall, marks::kReturn, marks::kStart}) {
    const size_t at = held_.find(mark);
    if (at >= first) continue;
    first = at;
    size = mark == marks::kStart ? 0 : mark.size();
  }
  if (first != std::string::npos) {
    harmony_text(first);
    held_.erase(0, size);
    harmony_end();
    in_header_ = true;
    return true;
  }
  size_t keep = 0;
  if (!last)
    for (const std::string_view mark : {marks::kEnd, marks::kCall, marks::kReturn, marks::kStart})
      keep = std::max(keep, overlap(held_, mark));
  harmony_text(held_.size() - keep);
  if (last) harmony_end();
  return false;
}

void ToolCallParser::State::harmony_text(size_t length) {
  const std::string text = held_.substr(0, length);
  held_.erase(0, length);
  if (!channel_.function.empty())
    harmony_arguments(text);
  else if (!channel_.reasoning)
    content(text);
  else if (!text.empty())
    parts_.push_back({.kind = Kind::kReasoning, .text = text});
}

void ToolCallParser::State::harmony_arguments(std::string_view text) {
  arguments_ += text;
  if (!calling_) {
    told_ = arguments_.find_first_not_of(kBlank);
    if (!finds_calls_ || told_ == std::string::npos || arguments_[told_] != '{') return;
    calling_ = true;
    begin_call("", channel_.function);
  }
  if (arguments_end_.done() || told_ == arguments_.size()) return;
  told_ += more_arguments(std::string_view(arguments_).substr(told_));
}

void ToolCallParser::State::harmony_end() {
  const Channel channel = std::exchange(channel_, {});
  const std::string arguments = std::exchange(arguments_, {});
  const bool calling = std::exchange(calling_, false);
  if (channel.function.empty()) return;
  const auto object = object_text(arguments);
  if (calling && object)
    end_call(*object);
  else if (calling)
    lose_call(arguments);
  else if (object && finds_calls_)
    call({.id = {}, .name = channel.function, .arguments = *object});
  else
    content(arguments);
}

ToolCallParser::ToolCallParser(const ToolSyntax& syntax, std::string_view prompt,
                               const OrderedJson& tools)
    : state_(std::make_unique<State>(syntax, prompt, tools)) {}
ToolCallParser::~ToolCallParser() = default;
ToolCallParser::ToolCallParser(ToolCallParser&&) noexcept = default;

std::vector<AnswerPart> ToolCallParser::feed(std::string_view piece) {
  state_->feed(piece, false);
  return state_->take_parts();
}

std::vector<AnswerPart> ToolCallParser::finish() {
  state_->feed({}, true);
  return state_->take_parts();
}

size_t ToolCallParser::calls() const { return state_->begun; }
size_t ToolCallParser::complete_calls() const { return state_->complete; }

}  // namespace sluice::chat
