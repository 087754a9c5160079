// Tables, and what the console prints when there is no terminal.
#include "cli/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace sluice::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(Table, ColumnsAlign) {
  Table table({Align::kLeft, Align::kRight, Align::kLeft});
  table.add({"role", "bytes", "note"});
  table.add({"attention_q", "7", "x"});
  table.add({"a", "123456", ""});
  EXPECT_EQ(table.text("  "),
            "  role          bytes  note\n"
            "  attention_q       7  x\n"
            "  a            123456\n");
}

TEST(Table, CountsCharactersNotBytes) {
  EXPECT_EQ(display_width("–"), 1u);
  EXPECT_EQ(display_width("█░ä"), 3u);
  EXPECT_EQ(display_width(""), 0u);
  Table table({Align::kLeft, Align::kLeft});
  table.add({"ä", "|"});
  table.add({"b", "|"});
  EXPECT_EQ(table.text(""), "ä  |\nb  |\n");
}

TEST(Table, ShortRowsAndNone) {
  Table table({Align::kLeft, Align::kLeft});
  EXPECT_EQ(table.text(""), "");
  table.add({"only"});
  table.add({"two", "cells"});
  EXPECT_EQ(table.text(""), "only\ntwo   cells\n");
}

TEST(ShellWord, QuotesWhatAShellWouldTakeApart) {
  EXPECT_EQ(shell_word("models/a-b_1.gguf"), "models/a-b_1.gguf");
  EXPECT_EQ(shell_word("my model"), "'my model'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word("$HOME"), "'$HOME'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST(Console, PlainLinesWithoutATerminal) {
  CaptureStderr();
  Console console(false, false);
  console.info("a note");
  console.warn("careful");
  console.begin("analyze", 1000);
  console.advance(1000);
  console.end();
  const std::string text = GetCapturedStderr();
  EXPECT_THAT(text, ::testing::StartsWith("a note\nwarning: careful\nanalyze    1.000 kB in "));
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
}

TEST(Console, QuietKeepsErrors) {
  CaptureStderr();
  Console console(true, true);
  console.info("a note");
  console.warn("careful");
  console.begin("analyze", 1000);
  console.advance(1000);
  console.end();
  console.error("broken");
  EXPECT_EQ(GetCapturedStderr(), "error: broken\n");
}

TEST(Console, TotalsThatAreWrongDoNoHarm) {
  CaptureStderr();
  Console console(false, true);
  console.begin("empty", 0);
  console.end();
  console.begin("more than promised", 10);
  console.advance(1000);
  console.end();
  EXPECT_THAT(GetCapturedStderr(), HasSubstr("more than promised 1.000 kB in"));
}

TEST(Console, AStageWithNothingToDoIsNotReported) {
  CaptureStderr();
  Console console(false, false);
  console.begin("analyze", 1000);
  console.end();
  EXPECT_EQ(GetCapturedStderr(), "");
}

TEST(Console, EndingTwiceSaysItOnce) {
  CaptureStderr();
  Console console(false, false);
  console.begin("verify", 10);
  console.advance(10);
  console.end();
  console.end();
  const std::string text = GetCapturedStderr();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

TEST(Wrapped, BreaksAtSpaces) {
  using Lines = std::vector<std::string>;
  EXPECT_EQ(wrapped("one two three", 7), (Lines{"one two", "three"}));
  EXPECT_EQ(wrapped("one two three", 100), (Lines{"one two three"}));
  EXPECT_EQ(wrapped("unbreakable a", 4), (Lines{"unbreakable", "a"}));
  EXPECT_EQ(wrapped("a × b", 5), (Lines{"a × b"}));  // characters, not bytes
  EXPECT_EQ(wrapped("", 4), (Lines{""}));
}

}  // namespace
}  // namespace sluice::cli
