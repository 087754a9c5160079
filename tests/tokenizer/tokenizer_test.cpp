// Ids, special tokens and refusals, on tokenizers small enough to know by heart.
#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "tokenizer/tiny_tokenizers.h"

namespace sluice::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

TEST(TokenizerTest, EncodesByMergesAndBytes) {
  const auto tokenizer = testing::open(testing::byte_level());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("hello world", false).value(),
            (Ids{258, 'o', 259, 'o', 'r', 'l', 'd'}));
  EXPECT_EQ(tokenizer->encode("\xc3\xa9", false).value(), (Ids{0xc3, 0xa9}));
  EXPECT_EQ(tokenizer->encode("", true).value(), Ids{});
  EXPECT_EQ(tokenizer->encode("<|start|>he<|end|>", false).value(), (Ids{261, 256, 262}));
}

TEST(TokenizerTest, VocabularyByIdAndText) {
  const auto tokenizer = testing::open(testing::byte_level()).value();
  EXPECT_EQ(tokenizer.vocab_size(), 263u);
  EXPECT_EQ(tokenizer.id("hell"), 258u);
  EXPECT_EQ(tokenizer.id("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.token(259).value(), testing::byte_character(' ') + "w");
  EXPECT_EQ(tokenizer.token(263).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(tokenizer.is_special(262));
  EXPECT_FALSE(tokenizer.is_special(258));
  EXPECT_FALSE(tokenizer.is_special(9999));
}

TEST(TokenizerTest, SpecialIdsFromEveryFile) {
  const std::string text = dump_json(testing::byte_level());
  const auto tokenizer = Tokenizer::open(
      {.tokenizer = text,
       .tokenizer_config = R"({"bos_token": {"content": "<|start|>"}, "pad_token": null})",
       .special_tokens_map = R"({"bos_token": "<|end|>", "eos_token": "<|end|>"})",
       .generation_config = R"({"eos_token_id": [65, 66]})",
       .config = R"({"eos_token_id": 66})"});
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->special().bos, 261u);
  EXPECT_EQ(tokenizer->special().eos, 262u);
  EXPECT_EQ(tokenizer->special().padding, std::nullopt);
  EXPECT_THAT(tokenizer->special().ends, ElementsAre(65, 66, 262));
  EXPECT_TRUE(tokenizer->ends_text(66));
  EXPECT_FALSE(tokenizer->ends_text(261));
}

// transformers' Llama classes put bos by their flags; tokenizer.json's own idea does not count.
TEST(TokenizerTest, FlagsOfLlamaClasses) {
  const auto with = [](const std::string& more) {
    return testing::open(
               testing::sentencepiece(),
               R"({"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": )" + more + "}")
        .value()
        .encode("he", true)
        .value();
  };
  const Ids plain = with(R"("PreTrainedTokenizerFast", "add_bos_token": true)");
  Ids bos = plain, both = plain;
  bos.insert(bos.begin(), 1);
  both = bos;
  both.push_back(2);
  EXPECT_EQ(with(R"("LlamaTokenizerFast")"), bos);
  EXPECT_EQ(with(R"("LlamaTokenizer", "add_bos_token": false)"), plain);
  EXPECT_EQ(with(R"("LlamaTokenizer", "add_eos_token": true)"), both);
}

TEST(TokenizerTest, PaddingAndTruncationOfTheFileDoNotApply) {
  Json json = testing::byte_level();
  json["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  json["padding"] = {{"strategy", {{"Fixed", 1000}}},
                     {"direction", "Right"},
                     {"pad_to_multiple_of", nullptr},
                     {"pad_id", 0},
                     {"pad_type_id", 0},
                     {"pad_token", "<|end|>"}};
  const auto tokenizer = testing::open(json);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("abcd", false).value(), (Ids{'a', 'b', 'c', 'd'}));
}

TEST(TokenizerTest, EncodesOnManyThreads) {
  const auto tokenizer = testing::open(testing::byte_level()).value();
  std::array<std::thread, 4> threads;
  for (std::thread& thread : threads)
    thread = std::thread([&tokenizer] {
      for (int i = 0; i < 20; ++i)
        EXPECT_EQ(tokenizer.encode("hell wo", false).value(), (Ids{258, 259, 'o'}));
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerTest, RefusalsNameTheFile) {
  const auto missing = Tokenizer::open({});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(missing.error().message, HasSubstr("tokenizer.json"));
  const std::string text = dump_json(testing::byte_level());
  for (const char* config : {"[]", "{", R"({"a": 1, "a": 2})"}) {
    const auto bad = Tokenizer::open({.tokenizer = text, .tokenizer_config = config});
    ASSERT_FALSE(bad) << config;
    EXPECT_EQ(bad.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(bad.error().message, HasSubstr("tokenizer_config.json"));
  }
  const auto ends =
      Tokenizer::open({.tokenizer = text, .generation_config = R"({"eos_token_id": "x"})"});
  ASSERT_FALSE(ends);
  EXPECT_THAT(ends.error().message, HasSubstr("generation_config.json"));
}

}  // namespace
}  // namespace sluice::tokenizer
