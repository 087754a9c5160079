// Colours for code, line by line: comments, strings, numbers and the usual words of the common
// languages. A help for the eye, not a parser.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sluice::cli {

// One block of code. One thread.
class Highlighter {
 public:
  // language: as behind a fence: "python", "c++"; one that is not known gets no colours.
  explicit Highlighter(std::string_view language);

  // The line, which has no end of line in it, with ANSI colours.
  std::string line(std::string_view text);

 private:
  size_t take(std::string_view rest, std::string& out);
  size_t take_quoted(std::string_view rest, std::string& out);
  std::string diff_line(std::string_view text) const;

  std::span<const std::string_view> words_;
  std::string_view line_comment_;
  bool block_comments_ = false, triple_quotes_ = false, diff_ = false, known_ = false;
  std::string until_;  // what ends the comment or string that goes on from the line before
};

}  // namespace sluice::cli
