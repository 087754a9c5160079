// Markdown on a terminal: what is shown, and that it does not depend on how the text arrives.
#include "cli/markdown.h"

#include <gtest/gtest.h>

#include <random>

#include "chat/visible_text.h"
#include "support/seed.h"

namespace sluice::cli {
namespace {

std::string drawn(std::string_view text, MarkdownOptions options = {}) {
  Markdown markdown(options);
  const std::string shown = markdown.feed(text);
  return shown + markdown.finish();
}

// Styles as letters: readable expectations.
std::string marked(std::string_view text, MarkdownOptions options = {}) {
  std::string out = drawn(text, options);
  for (size_t place; (place = out.find('\x1b')) != std::string::npos;) {
    const size_t end = out.find('m', place);
    out = out.substr(0, place) + "<" + out.substr(place + 2, end - place - 2) + ">" +
          out.substr(end + 1);
  }
  return out;
}

TEST(Markdown, EmphasisCodeAndLinks) {
  EXPECT_EQ(marked("a **b** c"), "a <1>b<22> c");
  EXPECT_EQ(marked("*a* _b_ ***c***"), "<3>a<23> <3>b<23> <1;3>c<22;23>");
  EXPECT_EQ(marked("**a *b* c**"), "<1>a <3>b<23> c<22>");
  EXPECT_EQ(marked("run `a*b*c` now"), "run <36>a*b*c<39> now");
  EXPECT_EQ(marked("``a`b``"), "<36>a`b<39>");
  EXPECT_EQ(marked("~~no~~ \\*x\\*"), "<9>no<29> *x*");
  EXPECT_EQ(marked("[here](http://a.b)"), "<4>here<24> <2>(http://a.b)<22>");
}

TEST(Markdown, WhatIsNoMarkupStays) {
  for (const char* text : {"2 * 3 * 4", "a_b_c", "2**3**4", "snake_case *", "** a **", "`open",
                           "**open", "[x] y", "array[i] = 3", "\\(x\\)", "~5 and ~6", "*a\nb*",
                           "#hash", "C:\\\\a\\b", "1.5 m", "-1 and", "a | b", "'quoted'"})
    EXPECT_EQ(drawn(text), text);
}

// The last of several backslashes may mark, in whatever pieces they come.
TEST(Markdown, SeveralBackslashes) {
  for (const size_t cut : {1, 2, 3, 4, 5}) {
    Markdown markdown({});
    const std::string_view text = R"(\\**~~ b **c)";
    std::string streamed = markdown.feed(text.substr(0, cut));
    streamed += markdown.feed(text.substr(cut));
    streamed += markdown.finish();
    EXPECT_EQ(streamed, drawn(std::string(text))) << cut;
  }
}

TEST(Markdown, Lines) {
  EXPECT_EQ(marked("# Big *one*\ntext"), "<1;4>Big one<0>\ntext");
  EXPECT_EQ(marked("### Small"), "<1>Small<0>");
  EXPECT_EQ(drawn("- a\n  * b\n1. c\n"), "• a\n  • b\n1. c\n");
  EXPECT_EQ(marked("> said"), "<2>│<22> said");
  EXPECT_EQ(
      drawn("a\n\n---\nb"), "a\n\n" + []() {
        std::string rule;
        for (int i = 0; i < 40; ++i) rule += "─";
        return rule;
      }() + "\nb");
  EXPECT_EQ(marked("**bold** first"), "<1>bold<22> first");
}

TEST(Markdown, Code) {
  EXPECT_EQ(marked("```python\ndef f(x):  # go\n  return 'a' + 1\n```\nend"),
            "  <2>python<22>\n  <35>def<39> f(x):  <90># go<39>\n    <35>return<39> <32>'a'<39> + "
            "<36>1<39>\nend");
  EXPECT_EQ(marked("```\n**as it is** 1\n```\n"), "  **as it is** 1\n");
  EXPECT_EQ(marked("```c\n/* a\nb */ int\n```\n"),
            "  <2>c<22>\n  <90>/* a<39>\n  <90>b */<39> <35>int<39>\n");
  EXPECT_EQ(marked("````\n```\n````\nx"), "  ```\nx");
  EXPECT_EQ(marked("```diff\n+a\n-b\n"), "  <2>diff<22>\n  <32>+a<39>\n  <31>-b<39>\n");
  EXPECT_EQ(drawn("```js\nlet it's = 'cut"),
            "  \x1b[2mjs\x1b[22m\n  \x1b[35mlet\x1b[39m it"
            "\x1b[32m's = '\x1b[39mcut");
}

TEST(Markdown, Tables) {
  const std::string table = "| a | long **b** |\n|---|:-:|\n| 日本 | x |\n";
  EXPECT_EQ(marked(table + "end"), "<1>a<22>     <1>long <1>b<22><22>\n────  ──────\n日本  x\nend");
  // Too wide for the terminal: as it was written.
  EXPECT_EQ(drawn(table, {.styles = false, .columns = 8}), table);
  EXPECT_EQ(drawn("| only one row |\nx"), "| only one row |\nx");
}

TEST(Markdown, WithoutStylesNothingIsLost) {
  const MarkdownOptions plain{.styles = false, .columns = 80};
  EXPECT_EQ(drawn("# A\n**b** `c` [d](e) \\* ~~f~~\n```py\ndef\n```\n", plain),
            "# A\n**b** `c` [d](e) \\* ~~f~~\n```py\ndef\n```\n");
}

// However the text is cut into pieces, the same comes out, and styles are off at the end.
TEST(Markdown, DoesNotDependOnPieces) {
  std::mt19937_64 random(test::seed());
  const std::string_view pieces[] = {"*",   "**", "`",  "```", "\n",   "\n\n", "|",  "a",
                                     " b ", "#",  "# ", "- ",  "1. ",  "[",    "](", ")",
                                     "~~~", "_",  "\\", "é",   "---",  "> ",   "py", "|--|",
                                     "/*",  "'",  "~~", "日",  "word", "+"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (size_t i = 0; i < 30; ++i) text += pieces[random() % std::size(pieces)];
    const std::string whole = drawn(text);
    Markdown markdown({});
    std::string streamed;
    for (size_t at = 0; at < text.size();) {
      const size_t length = std::min<size_t>(1 + random() % 5, text.size() - at);
      streamed += markdown.feed(std::string_view(text).substr(at, length));
      at += length;
    }
    streamed += markdown.finish();
    ASSERT_EQ(streamed, whole) << "text: " << text;
  }
}

TEST(VisibleText, ShowsWhatTerminalsObey) {
  EXPECT_EQ(chat::visible_text("a\x1b[2Jb\r\x07\tc\nd\x7f"), "a^[[2Jb^M^G\tc\nd^?");
  EXPECT_EQ(chat::visible_text("\xc2\x9b"
                               "1m \xe2\x80\xae x"),
            "<U+009B>1m <U+202E> x");
  EXPECT_EQ(chat::visible_text("\xff\xc0\xafgr\xc3\xbc\xc3\x9f"), "���grüß");
  EXPECT_EQ(chat::visible_text(std::string("a\0b", 3)), "a^@b");
}

TEST(VisibleText, Columns) {
  EXPECT_EQ(chat::text_columns("grüß"), 4u);
  EXPECT_EQ(chat::text_columns("日本🙂"), 6u);
  EXPECT_EQ(chat::text_columns("e\xcc\x81"), 1u);
  EXPECT_EQ(chat::fitting("日本x", 3), "日");
  EXPECT_EQ(chat::fitting("abc", 9), "abc");
}

}  // namespace
}  // namespace sluice::cli
