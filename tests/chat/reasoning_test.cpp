// Thinking and answer told apart wherever the pieces are cut.
#include "chat/reasoning.h"

#include <gtest/gtest.h>

namespace sluice::chat {
namespace {

struct Split {
  std::string thinking, answer;
  bool operator==(const Split&) const = default;
};

Split split(const std::string& prompt, const std::string& text, size_t step) {
  ReasoningSplitter splitter(prompt);
  Split seen;
  const auto take = [&](const std::vector<TextPart>& parts) {
    for (const TextPart& part : parts) (part.thinking ? seen.thinking : seen.answer) += part.text;
  };
  for (size_t at = 0; at < text.size(); at += step) take(splitter.feed(text.substr(at, step)));
  take(splitter.finish());
  return seen;
}

TEST(ReasoningSplitter, TellsThemApartAtEveryCut) {
  struct Case {
    std::string prompt, text;
    Split expected;
  };
  const Case cases[] = {
      {"", "<think>\nhm, 1 < 2\n</think>\n\nTwo.", {"hm, 1 < 2", "Two."}},
      {"<|assistant|><think>\n", "well\n</think>\n\nYes", {"well", "Yes"}},
      {"", "Plain <think> is text", {"", "Plain <think> is text"}},
      {"", "  \n<think></think>\n\nempty", {"", "empty"}},
      {"", "<thinking>a</think>b</thinking>c", {"a</think>b", "c"}},
      {"", "<think>never closed </thi", {"never closed </thi", ""}},
      {"", "<thin", {"", "<thin"}},
      {"", "[THINK]a[/THINK]b", {"a", "b"}},
      {"ends with <think> in it", "x</think>y", {"", "x</think>y"}},
  };
  for (const Case& c : cases)
    for (size_t step = 1; step <= c.text.size(); ++step)
      EXPECT_EQ(split(c.prompt, c.text, step), c.expected) << c.text << " by " << step;
}

TEST(ReasoningSplitter, PartsAlternate) {
  ReasoningSplitter splitter("");
  const auto parts = splitter.feed("<think>a</think>b");
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(parts[0].thinking);
  EXPECT_EQ(parts[0].text, "a");
  EXPECT_FALSE(parts[1].thinking);
  EXPECT_EQ(parts[1].text, "b");
}

TEST(ReasoningSplitter, AnswersAreNotHeldBack) {
  ReasoningSplitter splitter("");
  EXPECT_EQ(splitter.feed("Hello").size(), 1u);
  const auto parts = splitter.feed(" world\n\n");
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].text, " world\n\n");
}

TEST(Reasoning, TemplatesThatKnowOfIt) {
  EXPECT_TRUE(knows_thinking("{% if enable_thinking %}…"));
  EXPECT_TRUE(knows_thinking("{{ '<think>\\n' }}"));
  EXPECT_FALSE(knows_thinking("{{ '<|im_start|>assistant' }} I think"));
}

}  // namespace
}  // namespace sluice::chat
