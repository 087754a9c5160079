#include "cli/answer_printer.h"

#include <unistd.h>

#include <cstdio>

#include "chat/visible_text.h"
#include "cli/terminal.h"

namespace sluice::cli {

bool print_text(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0;
}

AnswerPrinter::AnswerPrinter(std::string_view prompt, Reasoning reasoning,
                             std::optional<MarkdownOptions> markdown, PrintText print)
    : splitter_(prompt),
      reasoning_(reasoning),
      terminal_(isatty(STDOUT_FILENO) == 1),
      styles_(shows_styles()),
      print_(std::move(print)) {
  if (markdown) markdown_.emplace(*markdown);
}

AnswerPrinter::~AnswerPrinter() { dim(false); }

void AnswerPrinter::put(std::string_view text) {
  if (text.empty()) return;
  readable_ = print_(text) && readable_;
  ends_line_ = text.ends_with('\n');
}

void AnswerPrinter::dim(bool on) {
  if (on == dimmed_ || !styles_) return;
  dimmed_ = on;
  readable_ = print_(on ? "\x1b[2m" : "\x1b[0m") && readable_;
}

bool AnswerPrinter::show(std::string_view text) {
  take(splitter_.feed(text));
  return readable_;
}

bool AnswerPrinter::show_part(const chat::TextPart& part) {
  take({part});
  return readable_;
}

void AnswerPrinter::finish() {
  take(splitter_.finish());
  if (markdown_) put(markdown_->finish());
  dim(false);
}

void AnswerPrinter::take(const std::vector<chat::TextPart>& parts) {
  for (const chat::TextPart& part : parts) {
    (part.thinking ? thoughts_ : answer_) += part.text;
    if (part.thinking && reasoning_ == Reasoning::kHide) continue;
    dim(part.thinking);
    if (!part.thinking && thought_) put("\n\n");
    thought_ = part.thinking;
    const std::string text = terminal_ ? chat::visible_text(part.text) : part.text;
    put(markdown_ && !part.thinking ? markdown_->feed(text) : text);
  }
}

}  // namespace sluice::cli
