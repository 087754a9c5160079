// A tokenizer and a template out of GGUF metadata, which io turns into the files' texts.
#include "io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/gguf_config.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/real_inputs.h"
#include "tokenizer/tokenizer.h"

namespace sluice::tokenizer {
namespace {

using Ids = std::vector<uint32_t>;

struct Texts {
  std::string tokenizer, config, generation;
};

Result<Texts> texts_of(const std::filesystem::path& path) {
  SLUICE_ASSIGN(const auto source, io::open_file_source(path.string()));
  SLUICE_ASSIGN(const io::GgufHeader header, io::read_gguf_header(*source, 0));
  SLUICE_ASSIGN(auto files, io::rebuild_tokenizer(header, path.filename().string()));
  Texts texts{files.at(0).text, files.at(1).text, ""};
  texts.generation = dump_json(io::rebuild_generation_config(header));
  return texts;
}

Result<Tokenizer> open(const Texts& texts) {
  return Tokenizer::open({.tokenizer = texts.tokenizer,
                          .tokenizer_config = texts.config,
                          .generation_config = texts.generation});
}

TEST(GgufTokenizerTest, DemoModelTalks) {
  const char* path = std::getenv("SLUICE_DEMO_MODEL");
  if (path == nullptr || !std::filesystem::exists(path))
    GTEST_SKIP() << "no demo model; run scripts/demo_model";
  const auto texts = texts_of(path);
  ASSERT_TRUE(texts) << texts.error().message;
  const auto tokenizer = open(*texts);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto chat = ChatTemplate::open({.tokenizer_config = texts->config});
  ASSERT_TRUE(chat) << chat.error().message;
  const auto text = chat->render({.messages = messages_json(std::vector<ChatMessage>{
                                      {"system", "Be brief."}, {"user", "Hi"}})});
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
  const Ids ids = tokenizer->encode(*text, false).value();
  EXPECT_EQ(ids.front(), tokenizer->id("<|im_start|>"));
  EXPECT_EQ(tokenizer->decode(ids, false).value(), *text);
  EXPECT_EQ(tokenizer->decode(ids, true).value(), "system\nBe brief.\nuser\nHi\nassistant\n");
  EXPECT_TRUE(tokenizer->ends_text(tokenizer->id("<|im_end|>").value()));
}

// The trained story model has the same vocabulary as GGUF and as tokenizer.json.
TEST(GgufTokenizerTest, StoriesAsFromTheirFolder) {
  const auto folder = testing::real_inputs("models/stories260K");
  if (!folder) GTEST_SKIP() << "SLUICE_REAL_INPUTS is not set";
  const auto texts = texts_of(*folder / "gguf/stories260K-f32.gguf");
  ASSERT_TRUE(texts) << texts.error().message;
  const auto tokenizer = open(*texts);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::string story = "Once upon a time, there was a little girl named Lily.\n\xc3\xa9!";
  const Ids ids = tokenizer->encode(story, true).value();
  EXPECT_EQ(ids.front(), tokenizer->special().bos);
  EXPECT_EQ(tokenizer->decode(ids, true).value(), story);
  const std::string own = testing::read_text(*folder / "hf/tokenizer.json");
  if (own.empty()) return;
  const auto reference = Tokenizer::open({.tokenizer = own});
  ASSERT_TRUE(reference) << reference.error().message;
  EXPECT_EQ(tokenizer->encode(story, false).value(), reference->encode(story, false).value());
}

}  // namespace
}  // namespace sluice::tokenizer
