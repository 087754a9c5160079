// Tells a model's thinking from its answer in a stream of text: what lies between <think> and
// </think>, or their like. Models mark it in text, so tokens play no part here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::chat {

struct TextPart {
  bool thinking = false;
  std::string text;
};

struct ThinkingMarks {
  std::string_view open, close;
};
// The marks of thinking in a chat template's text, which a model may write by itself; empty: none.
ThinkingMarks template_thinking(std::string_view template_text);
// The mark that ends the thinking which a prompt has opened at its end; empty: none is open.
std::string_view open_thinking(std::string_view prompt);
// Whether a chat template speaks of thinking: it has a mark of it, or a switch for it.
bool knows_thinking(std::string_view template_text);

// One thread.
class ReasoningSplitter {
 public:
  // prompt: what the model continues; templates of models that always think open the block there.
  explicit ReasoningSplitter(std::string_view prompt);

  // Consecutive parts differ in kind; none is empty. Marks are in neither, nor the blank lines
  // around them.
  std::vector<TextPart> feed(std::string_view piece);
  // What was held back because it could have become a mark.
  std::vector<TextPart> finish();

 private:
  bool take_mark();
  void release(size_t length, std::vector<TextPart>& parts);

  bool thinking_ = false;
  bool may_begin_ = true;    // only an answer's very beginning may open a block
  bool trim_start_ = false;  // behind a mark
  std::string_view close_;
  std::string held_;
};

}  // namespace sluice::chat
