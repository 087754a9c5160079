// An answer's form behind the thinking that a prompt has opened, or that a model opens by itself.
#include "chat/answer_form.h"

#include <gtest/gtest.h>

#include "tokenizer/tiny_tokenizers.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kTemplate = "{% if enable_thinking %}{{ '<think>' }}{% endif %}";
const AnswerForm kNumber{AnswerForm::Kind::kSchema, R"({"type": "integer"})"};

// Pieces that are tokens of the vocabulary are one, others their bytes.
bool takes(const tokenizer::Tokenizer& tokenizer, const AnswerForm& form, std::string_view prompt,
           const ThinkingMarks& own, const std::vector<std::string_view>& pieces) {
  auto constraint = constrain_answer(tokenizer, form, prompt, own);
  EXPECT_TRUE(constraint) << constraint.error().message;
  for (const std::string_view piece : pieces) {
    const auto id = tokenizer.id(piece);
    std::vector<uint32_t> tokens;
    if (id && tokenizer.is_special(*id))
      tokens = {*id};
    else
      for (const char c : piece) tokens.push_back(static_cast<uint8_t>(c));
    if (constraint->count_allowed(tokens).value() != tokens.size()) return false;
    for (const uint32_t token : tokens) EXPECT_TRUE(constraint->take(token));
  }
  return constraint->may_end().value();
}

TEST(AnswerForm, AModelMayThinkFirst) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  const ThinkingMarks own = template_thinking(kTemplate);
  ASSERT_EQ(own.open, "<think>");
  const AnswerForm regex{AnswerForm::Kind::kRegex, "[0-9]+"};
  for (const AnswerForm& form : {kNumber, regex}) {
    EXPECT_TRUE(takes(tokenizer, form, "<|assistant|>", own, {"12"}));
    EXPECT_TRUE(takes(tokenizer, form, "<|assistant|>", own, {"<think>\nHm {}.\n</think>\n\n12"}));
    EXPECT_TRUE(takes(tokenizer, form, "<|assistant|>", own, {"<think></think>12"}));
    EXPECT_FALSE(takes(tokenizer, form, "<|assistant|>", own, {"<think>Hm.</think>Hm."}));
    EXPECT_FALSE(takes(tokenizer, form, "<|assistant|>", own, {"<think>12"}));
    EXPECT_FALSE(takes(tokenizer, form, "<|assistant|>", own, {"Hm."}));
  }
}

TEST(AnswerForm, NotWhereThinkingIsOffOrUnknown) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  const ThinkingMarks own = template_thinking(kTemplate);
  EXPECT_FALSE(takes(tokenizer, kNumber, "<think>\n\n</think>\n\n", own, {"<think></think>12"}));
  EXPECT_TRUE(takes(tokenizer, kNumber, "<think>\n\n</think>\n\n", own, {"12"}));
  EXPECT_FALSE(takes(tokenizer, kNumber, "<|assistant|>", {}, {"<think></think>12"}));
  EXPECT_EQ(template_thinking("{{ messages }}").open, "");
}

TEST(AnswerForm, ThinkingThatThePromptHasOpenedIsEnded) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  const ThinkingMarks own = template_thinking(kTemplate);
  EXPECT_TRUE(takes(tokenizer, kNumber, "<|assistant|><think>\n", own, {"Hm.</think>\n12"}));
  EXPECT_FALSE(takes(tokenizer, kNumber, "<|assistant|><think>\n", own, {"12"}));
}

TEST(AnswerForm, MarksThatAreTokens) {
  Json json = tokenizer::testing::byte_level();
  json["added_tokens"].push_back(tokenizer::testing::added_token(300, "[THINK]"));
  json["added_tokens"].push_back(tokenizer::testing::added_token(301, "[/THINK]"));
  const auto tokenizer = tokenizer::testing::open(json).value();
  const ThinkingMarks own = template_thinking("[THINK]");
  EXPECT_TRUE(takes(tokenizer, kNumber, "", own, {"[THINK]", "Hm.", "[/THINK]", "12"}));
  EXPECT_TRUE(takes(tokenizer, kNumber, "[THINK]", own, {"Hm.", "[/THINK]", "12"}));
  EXPECT_FALSE(takes(tokenizer, kNumber, "", own, {"[THINK]", "12"}));
  EXPECT_TRUE(takes(tokenizer, kNumber, "", own, {"12"}));
}

}  // namespace
}  // namespace sluice::chat
