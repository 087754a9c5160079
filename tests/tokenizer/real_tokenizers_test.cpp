// Tokenizers of real models against ids from Hugging Face's own core, and incremental decoding of
// random ids against the decoding of all at once. Skips without the real-input folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "support/seed.h"
#include "tokenizer/real_inputs.h"
#include "tokenizer/tokenizer.h"

namespace sluice::tokenizer {
namespace {

using Ids = std::vector<uint32_t>;
using testing::read_text;
using testing::real_inputs;

constexpr const char* kModels[] = {"deepseek_v3", "gpt2", "llama2", "mistral_nemo", "qwen3"};

Tokenizer open(const std::filesystem::path& folder) {
  const std::string tokenizer = read_text(folder / "tokenizer.json");
  const std::string config = read_text(folder / "tokenizer_config.json");
  const std::string map = read_text(folder / "special_tokens_map.json");
  auto opened = Tokenizer::open(
      {.tokenizer = tokenizer, .tokenizer_config = config, .special_tokens_map = map});
  EXPECT_TRUE(opened) << folder << ": " << opened.error().message;
  return std::move(*opened);
}

class RealTokenizers : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto folder = real_inputs("tokenizers");
    if (!folder) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
    folder_ = *folder / GetParam();
  }
  std::filesystem::path folder_;
};

TEST_P(RealTokenizers, IdsAreHuggingFaces) {
  const Tokenizer tokenizer = open(folder_);
  const Json expected = parse_json(read_text(folder_ / "expected.json"), "expected").value();
  size_t passed = 0, decoded = 0;
  for (const Json& test : expected.at("tests")) {
    const auto text = test.at("text").get<std::string>();
    const auto ids = test.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.encode(text, false).value(), ids) << text;
    if (test.contains("ids_with_special")) {
      EXPECT_EQ(tokenizer.encode(text, true).value(), test.at("ids_with_special").get<Ids>());
    }
    if (test.contains("decoded")) {
      EXPECT_EQ(tokenizer.decode(ids, false).value(), test.at("decoded").get<std::string>());
    } else {
      EXPECT_EQ(tokenizer.decode(ids, false).value(), text);
    }
    ++passed;
    decoded += test.contains("decoded") ? 1 : 0;
  }
  std::printf("%s: %zu texts, %zu with a decoding of their own\n", GetParam(), passed, decoded);
  EXPECT_GE(passed, 60u);
}

TEST_P(RealTokenizers, PiecesOfRandomIdsJoinToTheWhole) {
  const Tokenizer tokenizer = open(folder_);
  std::mt19937_64 random(test::seed());
  const auto size = static_cast<uint32_t>(tokenizer.vocab_size());
  for (int round = 0; round < 200; ++round) {
    Ids ids(random() % 30);
    for (uint32_t& id : ids)  // small ids are bytes in most vocabularies
      id = static_cast<uint32_t>(random() % (round % 2 == 0 ? size : 400));
    Decoder decoder(tokenizer, round % 3 == 0);
    std::string joined;
    for (const uint32_t id : ids) {
      const std::string piece = decoder.push(id).value();
      // dump() throws on what is no UTF-8.
      EXPECT_NO_THROW(static_cast<void>(Json(piece).dump()));
      joined += piece;
    }
    joined += decoder.flush().value();
    ASSERT_EQ(joined, tokenizer.decode(ids, round % 3 == 0).value())
        << ::testing::PrintToString(ids);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RealTokenizers, ::testing::ValuesIn(kModels),
                         [](const auto& model) { return std::string(model.param); });

// Its tokenizer.json puts no bos; transformers' class does.
TEST(RealTokenizersTest, DeepseekBeginsWithBos) {
  const auto folder = real_inputs("tokenizers/deepseek_v3");
  if (!folder) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  const Tokenizer tokenizer = open(*folder);
  ASSERT_TRUE(tokenizer.special().bos);
  EXPECT_EQ(tokenizer.encode("Hello", true).value().front(), *tokenizer.special().bos);
}

}  // namespace
}  // namespace sluice::tokenizer
