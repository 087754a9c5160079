// What of a model's text is shown, and what is remembered of it. Standard output is no terminal
// here.
#include "cli/answer_printer.h"

#include <gtest/gtest.h>

namespace sluice::cli {
namespace {

class Shown {
 public:
  PrintText print() {
    return [this](std::string_view text) {
      text_ += text;
      return text_.size() < limit_;
    };
  }
  std::string text_;
  size_t limit_ = SIZE_MAX;
};

TEST(AnswerPrinter, TellsThoughtsFromTheAnswer) {
  Shown shown;
  AnswerPrinter printer("<assistant>", Reasoning::kOn, std::nullopt, shown.print());
  for (const char* piece : {"<th", "ink>\nhm", "m</thi", "nk>\n\nYes", "."})
    EXPECT_TRUE(printer.show(piece));
  printer.finish();
  EXPECT_EQ(printer.answer(), "Yes.");
  EXPECT_EQ(printer.thoughts(), "hmm");
  EXPECT_EQ(shown.text_, "hmm\n\nYes.");
  EXPECT_FALSE(printer.ends_line());
}

TEST(AnswerPrinter, HidesThoughtsButKeepsThem) {
  Shown shown;
  AnswerPrinter printer("<assistant><think>\n", Reasoning::kHide, std::nullopt, shown.print());
  printer.show("secret</think>open");
  printer.finish();
  EXPECT_EQ(shown.text_, "open");
  EXPECT_EQ(printer.thoughts(), "secret");
}

TEST(AnswerPrinter, DrawsAnswersAlone) {
  Shown shown;
  AnswerPrinter printer("<think>", Reasoning::kOn, MarkdownOptions{}, shown.print());
  printer.show("**as it is**</think>**bold** and *cut");
  EXPECT_EQ(shown.text_, "**as it is**\n\n\x1b[1mbold\x1b[22m and ");
  printer.finish();
  EXPECT_EQ(shown.text_, "**as it is**\n\n\x1b[1mbold\x1b[22m and *cut");
  EXPECT_EQ(printer.answer(), "**bold** and *cut");
}

TEST(AnswerPrinter, SaysWhenNobodyReads) {
  Shown shown;
  shown.limit_ = 3;
  AnswerPrinter printer("", Reasoning::kOn, std::nullopt, shown.print());
  EXPECT_TRUE(printer.show("ab"));
  EXPECT_FALSE(printer.show("cd"));
  EXPECT_FALSE(printer.show("ef"));
}

}  // namespace
}  // namespace sluice::cli
