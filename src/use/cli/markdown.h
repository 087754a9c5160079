// Markdown drawn on a terminal while it arrives. What was printed is never touched again: what can
// still turn out to be something else (a marker, a row of a table) waits until that is decided, so
// the result is right at any width and needs no moving of the cursor.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/highlight.h"

namespace sluice::cli {

struct MarkdownOptions {
  // ANSI styles; without them markers of emphasis stay as they were written.
  bool styles = true;
  size_t columns = 80;  // tables that are wider are shown as they were written
};

// One answer. One thread. Text must have passed chat::visible_text(): it is printed as it is.
class Markdown {
 public:
  explicit Markdown(const MarkdownOptions& options) : options_(options) {}

  // What can be printed now.
  std::string feed(std::string_view piece);
  // The rest. Styles are off behind it.
  std::string finish();

 private:
  // These take the beginning of held_ when they can, print to out_, and say whether they did.
  bool step();
  bool take_code_line();
  bool take_line_start();
  bool take_whole_line();
  bool take_marker();
  bool take_inline();

  void print_heading(std::string_view line, size_t level);
  void print_table();
  void open_code(std::string_view line);
  bool closes_code(std::string_view line) const;

  // A whole piece of text without line ends. Nested: how deep in other pieces.
  std::string spans(std::string_view text, size_t depth) const;
  // How much of text, which begins with a marker, is one piece with it, printed to out; 0: it is no
  // marker. Nothing: more text could still complete it.
  std::optional<size_t> span(std::string_view text, char before, bool complete, size_t depth,
                             std::string& out) const;
  std::optional<size_t> emphasis(std::string_view text, char before, bool complete, size_t depth,
                                 std::string& out) const;
  std::optional<size_t> code_span(std::string_view text, bool complete, std::string& out) const;
  std::optional<size_t> link(std::string_view text, bool complete, size_t depth,
                             std::string& out) const;
  std::string styled(std::string_view on, std::string_view off, std::string_view marker,
                     std::string_view text) const;

  const MarkdownOptions options_;
  std::string held_;  // not yet decided; begins at a line's start where line_start_
  std::string out_;
  bool line_start_ = true;
  bool ended_ = false;  // nothing more is to come
  char before_ = ' ';   // the last character taken of this line
  std::string fence_;   // of the code block that is open
  std::optional<Highlighter> highlighter_;
  std::vector<std::string> table_;  // rows of the one that is arriving
  bool table_ends_line_ = true;     // false: the text ended within its last row
};

}  // namespace sluice::cli
