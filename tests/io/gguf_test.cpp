// Hostile and damaged GGUF files must end in an error, whatever they claim about their lengths.
#include "io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "build_files.h"

namespace sluice::io {
namespace {

using numerics::DType;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::source_of;

Result<GgufHeader> read(const std::string& file) { return read_gguf_header(*source_of(file), 3); }

GgufBuilder good() {
  GgufBuilder file;
  file.text("general.architecture", "llama")
      .u32("llama.block_count", 2)
      .f32("llama.rope.freq_base", 1e6f)
      .boolean("tokenizer.ggml.add_bos_token", true)
      .strings("tokenizer.ggml.tokens", {"a", "", "bc"})
      .array<int32_t>("tokenizer.ggml.token_type", 5, {1, -2, 3})
      .array<float>("tokenizer.ggml.scores", 6, {0.5f, -1.0f, 2.0f});
  file.tensor("one", {64, 2}, 2, 0).tensor("two", {3, 5}, 0, 96);
  file.data = std::string(96 + 60, 'x');
  return file;
}

TEST(GgufTest, ReadsASoundFile) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder file = good();
    file.version = version;
    const auto header = read(file.build());
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->version, version);
    EXPECT_EQ(std::get<std::string>(*header->find("general.architecture")), "llama");
    EXPECT_EQ(std::get<uint64_t>(*header->find("llama.block_count")), 2u);
    EXPECT_EQ(std::get<float>(*header->find("llama.rope.freq_base")), 1e6f);
    EXPECT_TRUE(std::get<bool>(*header->find("tokenizer.ggml.add_bos_token")));
    EXPECT_EQ(header->find("absent"), nullptr);
    const auto& tokens = std::get<GgufArray>(*header->find("tokenizer.ggml.tokens"));
    ASSERT_EQ(tokens.size(), 3u);
    EXPECT_EQ(tokens.text(0), "a");
    EXPECT_EQ(tokens.text(1), "");
    EXPECT_EQ(tokens.text(2), "bc");
    EXPECT_FALSE(tokens.integer(0));
    const auto& types = std::get<GgufArray>(*header->find("tokenizer.ggml.token_type"));
    EXPECT_EQ(types.integer(1), -2);
    EXPECT_FALSE(types.text(1));
    const auto& scores = std::get<GgufArray>(*header->find("tokenizer.ggml.scores"));
    EXPECT_EQ(scores.number(1), -1.0);
    ASSERT_EQ(header->tensors.size(), 2u);
    const StoredTensor* one = header->find_tensor("one");
    ASSERT_NE(one, nullptr);
    EXPECT_EQ(one->info, (TensorInfo{"one", DType::kQ4_0, {2, 64}}));
    EXPECT_EQ(one->bytes, 72u);
    EXPECT_EQ(one->offset, header->data_start);
    EXPECT_EQ(one->file, 3u);
    EXPECT_EQ(header->find_tensor("two")->offset, header->data_start + 96);
    EXPECT_EQ(header->data_start % 32, 0u);
  }
}

TEST(GgufTest, AlignmentIsTakenFromTheMetadata) {
  for (const uint32_t alignment : {8u, 64u, 4096u, 1u << 20}) {
    GgufBuilder file;
    file.alignment = alignment;
    file.u32("general.alignment", alignment).tensor("t", {1}, 0, 0);
    file.data = "1234";
    const auto header = read(file.build());
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->data_start % alignment, 0u);
  }
}

struct Attack {
  const char* what;
  std::function<void(GgufBuilder&)> change;
  ErrorCode code = ErrorCode::kCorrupt;
};

TEST(GgufTest, AttacksAreErrors) {
  const auto array_claim = [](uint32_t type, uint64_t count) {
    return little_endian(type) + little_endian(count);
  };
  const uint64_t huge = uint64_t{1} << 63;
  const std::vector<Attack> attacks = {
      {"wrong magic", [](auto& f) { f.magic = 0x46554746; }},
      {"version 0", [](auto& f) { f.version = 0; }, ErrorCode::kUnsupported},
      {"version 1", [](auto& f) { f.version = 1; }, ErrorCode::kUnsupported},
      {"version 4", [](auto& f) { f.version = 4; }, ErrorCode::kUnsupported},
      {"big endian", [](auto& f) { f.version = 0x03000000; }, ErrorCode::kUnsupported},
      {"one tensor too many", [](auto& f) { f.extra_tensors = 1; }},
      {"one entry too many", [](auto& f) { f.extra_entries = 1; }},
      {"one entry too few", [](auto& f) { f.extra_entries = -1; }},
      {"2^63 tensors", [](auto& f) { f.extra_tensors = INT64_MAX; }},
      {"2^64-1 tensors", [](auto& f) { f.extra_tensors = -3; }},
      {"2^63 entries", [](auto& f) { f.extra_entries = INT64_MAX; }},
      {"2^32 entries", [](auto& f) { f.extra_entries = int64_t{1} << 32; }},
      {"value type 13", [](auto& f) { f.raw("k", 13, "xxxx"); }},
      {"value type 2^32-1", [](auto& f) { f.raw("k", UINT32_MAX, "xxxx"); }},
      {"boolean 2", [](auto& f) { f.raw("k", 7, "\x02"); }},
      {"boolean array with 3",
       [](auto& f) {
         f.raw("k", 9, little_endian(uint32_t{7}) + little_endian(uint64_t{1}) + "\x03");
       }},
      {"key twice", [](auto& f) { f.u32("llama.block_count", 3); }},
      {"empty key", [](auto& f) { f.u32("", 3); }},
      {"key not UTF-8", [](auto& f) { f.u32("\xff", 3); }},
      {"key of 65536 bytes", [](auto& f) { f.u32(std::string(65536, 'k'), 3); }},
      {"string of 2^63", [&](auto& f) { f.raw("k", 8, little_endian(huge)); }},
      {"string of 2^64-1", [](auto& f) { f.raw("k", 8, little_endian(UINT64_MAX)); }},
      {"string past the end", [](auto& f) { f.raw("k", 8, little_endian(uint64_t{100'000})); }},
      {"array of 2^63 strings", [&](auto& f) { f.raw("k", 9, array_claim(8, huge)); }},
      {"array of 2^61 u64", [&](auto& f) { f.raw("k", 9, array_claim(10, huge >> 2)); }},
      {"array of 2^64-1 u8", [&](auto& f) { f.raw("k", 9, array_claim(0, UINT64_MAX)); }},
      {"array past the end", [&](auto& f) { f.raw("k", 9, array_claim(4, 100'000)); }},
      {"array of unknown type", [&](auto& f) { f.raw("k", 9, array_claim(99, 0)); }},
      {"nested array past the end", [&](auto& f) { f.raw("k", 9, array_claim(9, 1'000)); }},
      {"nested array of 2^63", [&](auto& f) { f.raw("k", 9, array_claim(9, huge)); }},
      {"inner array of 2^61 u64",
       [&](auto& f) { f.raw("k", 9, array_claim(9, 1) + array_claim(10, huge >> 2)); }},
      {"string of an inner array past the end",
       [&](auto& f) {
         f.raw("k", 9, array_claim(9, 1) + array_claim(8, 1) + little_endian(huge));
       }},
      {"arrays nested nine deep",
       [&](auto& f) {
         std::string body;
         for (int i = 0; i < 9; ++i) body += array_claim(9, 1);
         f.raw("k", 9, body + array_claim(4, 0));
       },
       ErrorCode::kUnsupported},
      {"string in an array past the end",
       [&](auto& f) { f.raw("k", 9, array_claim(8, 1) + little_endian(huge)); }},
      {"alignment 0", [](auto& f) { f.u32("general.alignment", 0); }},
      {"alignment 1", [](auto& f) { f.u32("general.alignment", 1); }},
      {"alignment 33", [](auto& f) { f.u32("general.alignment", 33); }},
      {"alignment 2^31", [](auto& f) { f.u32("general.alignment", 1u << 31); }},
      {"alignment a string", [](auto& f) { f.text("general.alignment", "32"); }},
      {"alignment negative",
       [](auto& f) { f.raw("general.alignment", 5, little_endian(int32_t{-32})); }},
      {"split count a string", [](auto& f) { f.text("split.count", "1"); }},
      {"65536 parts", [](auto& f) { f.u32("split.count", 65536); }},
      {"negative part", [](auto& f) { f.raw("split.no", 5, little_endian(int32_t{-1})); }},
      {"part 1 of 1", [](auto& f) { f.u32("split.no", 1); }},
      {"part 2 of 2", [](auto& f) { f.u32("split.no", 2).u32("split.count", 2); }},
      {"2^32 tensors in all",
       [](auto& f) { f.raw("split.tensors.count", 10, little_endian(uint64_t{1} << 32)); }},
      {"no dimensions", [](auto& f) { f.tensor("t", {}, 0, 160); }},
      {"five dimensions", [](auto& f) { f.tensor("t", {1, 1, 1, 1, 1}, 0, 160); }},
      {"name twice", [](auto& f) { f.tensor("one", {0}, 0, 160); }},
      {"empty name", [](auto& f) { f.tensor("", {0}, 0, 160); }},
      {"control in a name", [](auto& f) { f.tensor("\x1b[2J", {0}, 0, 160); }},
      {"name not UTF-8", [](auto& f) { f.tensor("\xc0\x80", {0}, 0, 160); }},
      {"name of 1025 bytes", [](auto& f) { f.tensor(std::string(1025, 'n'), {0}, 0, 160); }},
      {"type Q8_K", [](auto& f) { f.tensor("t", {256}, 15, 160); }, ErrorCode::kUnsupported},
      {"type 43, newer", [](auto& f) { f.tensor("t", {256}, 43, 160); }, ErrorCode::kUnsupported},
      {"type 4, retired", [](auto& f) { f.tensor("t", {256}, 4, 160); }, ErrorCode::kUnsupported},
      {"type 2^32-1", [](auto& f) { f.tensor("t", {1}, UINT32_MAX, 160); },
       ErrorCode::kUnsupported},
      {"no whole block", [](auto& f) { f.tensor("t", {33}, 2, 160); }},
      {"rows whole, elements not", [](auto& f) { f.tensor("t", {16, 2}, 2, 160); }},
      {"product overflows", [](auto& f) { f.tensor("t", {1ull << 32, 1ull << 32}, 0, 160); }},
      {"bytes overflow", [](auto& f) { f.tensor("t", {1ull << 62}, 0, 160); }},
      {"2^63 elements", [&](auto& f) { f.tensor("t", {huge, 2}, 24, 160); }},
      {"overflow behind a zero", [&](auto& f) { f.tensor("t", {0, huge, huge}, 24, 160); }},
      {"offset off the alignment", [](auto& f) { f.tensor("t", {1}, 0, 100); }},
      {"offset past the end", [](auto& f) { f.tensor("t", {1}, 0, 1 << 20); }},
      {"offset 2^64-32", [](auto& f) { f.tensor("t", {8}, 0, UINT64_MAX - 31); }},
      {"empty tensor past the end", [](auto& f) { f.tensor("t", {0}, 0, 1 << 20); }},
      {"larger than the file", [](auto& f) { f.tensor("t", {1 << 20}, 0, 96); }},
      {"overlap", [](auto& f) { f.tensor("t", {1}, 0, 96); }},
      {"overlap inside", [](auto& f) { f.tensor("t", {1}, 0, 32); }},
      {"data missing", [](auto& f) { f.data.clear(); }},
      {"one byte missing", [](auto& f) { f.data.pop_back(); }},
  };
  for (const Attack& attack : attacks) {
    GgufBuilder file = good();
    attack.change(file);
    const auto header = read(file.build());
    ASSERT_FALSE(header) << attack.what;
    EXPECT_EQ(header.error().code, attack.code) << attack.what << ": " << header.error().message;
    EXPECT_THAT(header.error().message, ::testing::StartsWith("attack.bin: ")) << attack.what;
    for (const char c : header.error().message)
      EXPECT_GE(static_cast<unsigned char>(c), 0x20) << attack.what;
  }
}

TEST(GgufTest, LegacyVersionIsNamed) {
  GgufBuilder file = good();
  file.version = 1;
  EXPECT_THAT(read(file.build()).error().message, HasSubstr("GGUF version 1"));
}

TEST(GgufTest, TruncationAtEveryByteIsAnError) {
  const std::string file = good().build();
  for (size_t length = 0; length < file.size(); ++length)
    EXPECT_FALSE(read(file.substr(0, length))) << length;
}

TEST(GgufTest, EverySingleByteFlippedIsSurvived) {
  const std::string file = good().build();
  for (size_t at = 0; at < file.size(); ++at) {
    for (const char mask : {'\x01', '\x80', '\xff'}) {
      std::string damaged = file;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      (void)read(damaged);  // an error or a header; never a crash (sanitizers watch)
    }
  }
}

TEST(GgufTest, NestedArraysAreSkipped) {
  const auto claim = [](uint32_t type, uint64_t count) {
    return little_endian(type) + little_endian(count);
  };
  GgufBuilder file = good();
  file.raw("nested", 9,
           claim(9, 3) + claim(4, 2) + std::string(8, 'n') + claim(8, 1) +
               GgufBuilder::string("inner") + claim(9, 1) + claim(0, 5) + "12345");
  file.u32("after", 7);
  const auto header = read(file.build());
  ASSERT_TRUE(header) << header.error().message;
  const auto& nested = std::get<GgufArray>(*header->find("nested"));
  EXPECT_EQ(nested.element(), GgufType::kArray);
  EXPECT_EQ(nested.size(), 0u);
  EXPECT_EQ(std::get<uint64_t>(*header->find("after")), 7u);
}

TEST(GgufTest, SplitKeysOfEveryIntegerType) {
  GgufBuilder file = good();
  file.raw("split.no", 2, little_endian(uint16_t{1}))
      .raw("split.count", 2, little_endian(uint16_t{3}))
      .raw("split.tensors.count", 5, little_endian(int32_t{9}));
  const auto header = read(file.build());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->split.index, 1u);
  EXPECT_EQ(header->split.count, 3u);
  EXPECT_EQ(header->split.tensors, 9u);
  const auto whole = read(good().build());
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->split.index, 0u);
  EXPECT_EQ(whole->split.count, 1u);
  EXPECT_FALSE(whole->split.tensors);
}

TEST(GgufTest, LargeTokenArray) {
  GgufBuilder file = good();
  std::vector<std::string> many(250'000);
  for (size_t i = 0; i < many.size(); ++i) many[i] = std::to_string(i);
  file.strings("many", many);
  const auto header = read(file.build());
  ASSERT_TRUE(header) << header.error().message;
  const auto& array = std::get<GgufArray>(*header->find("many"));
  ASSERT_EQ(array.size(), many.size());
  EXPECT_EQ(array.text(249'999), "249999");
}

}  // namespace
}  // namespace sluice::io
