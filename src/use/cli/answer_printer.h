// A model's text on standard output as it comes: thinking dimmed or left out, Markdown drawn where
// that is wanted, and on a terminal nothing that it would obey.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/reasoning.h"
#include "cli/generation.h"
#include "cli/markdown.h"

namespace sluice::cli {

// Prints; false once nobody reads any more.
using PrintText = std::function<bool(std::string_view text)>;
// To standard output.
bool print_text(std::string_view text);

// Stops dimming on destruction. One thread.
class AnswerPrinter {
 public:
  // prompt: what the model continues. markdown: as text where there is none.
  AnswerPrinter(std::string_view prompt, Reasoning reasoning,
                std::optional<MarkdownOptions> markdown = std::nullopt,
                PrintText print = print_text);
  ~AnswerPrinter();
  AnswerPrinter(const AnswerPrinter&) = delete;
  AnswerPrinter& operator=(const AnswerPrinter&) = delete;

  // Once the reader is gone (a closed pipe) it returns false.
  bool show(std::string_view text);
  // The same where thinking has been told apart already.
  bool show_part(const chat::TextPart& part);
  // No more is to come: shows what was held back.
  void finish();
  // What was no thinking, and what was, as the model wrote it.
  const std::string& answer() const { return answer_; }
  const std::string& thoughts() const { return thoughts_; }
  bool ends_line() const { return ends_line_; }

 private:
  void take(const std::vector<chat::TextPart>& parts);
  void dim(bool on);
  void put(std::string_view text);

  chat::ReasoningSplitter splitter_;
  const Reasoning reasoning_;
  const bool terminal_, styles_;
  std::optional<Markdown> markdown_;
  const PrintText print_;
  bool dimmed_ = false, thought_ = false, ends_line_ = true, readable_ = true;
  std::string answer_, thoughts_;
};

}  // namespace sluice::cli
