// The shard index: only bare names of safetensors files, each tensor once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "io/names.h"
#include "io/safetensors_index.h"

namespace sluice::io {
namespace {

TEST(IndexTest, ReadsASoundIndex) {
  const auto index = parse_safetensors_index(
      R"({"metadata":{"total_size":5,"deep":[[{"weight_map":{"x":1}}]]},)"
      R"("weight_map":{"b":"model-2.safetensors","a":"model-1.safetensors",)"
      R"("c":"model-1.safetensors"},"other":null})",
      "index");
  ASSERT_TRUE(index) << index.error().message;
  EXPECT_THAT(index->files, ::testing::ElementsAre("model-1.safetensors", "model-2.safetensors"));
  ASSERT_EQ(index->entries.size(), 3u);
  EXPECT_EQ(index->entries[0].tensor, "a");
  EXPECT_EQ(index->entries[0].file, 0u);
  EXPECT_EQ(index->entries[1].tensor, "b");
  EXPECT_EQ(index->entries[1].file, 1u);
}

TEST(IndexTest, TotalSize) {
  const auto total = [](const std::string& metadata) {
    const auto index =
        parse_safetensors_index(R"({"total_size":1,"metadata":)" + metadata +
                                    R"(,"weight_map":{"total_size":"model.safetensors"}})",
                                "index");
    return index ? index->total_size : UINT64_MAX;
  };
  EXPECT_EQ(total(R"({"total_size":5})"), 5u);
  EXPECT_EQ(total(R"({"total_size":4096.0,"x":7})"), 4096u);
  for (const char* other :
       {"{}", "3", R"({"x":{"total_size":5}})", R"({"total_size":[5]})", R"({"total_size":-5})",
        R"({"total_size":"5"})", R"({"total_size":1e300})"})
    EXPECT_EQ(total(other), 0u) << other;
}

TEST(IndexTest, AttacksAreErrors) {
  const std::string long_name(300, 'f');
  for (const std::string& text : std::vector<std::string>{
           "",
           "[]",
           "7",
           "null",
           "{}",
           R"({"weight_map":{}})",
           R"({"weight_map":[]})",
           R"({"weight_map":null})",
           R"({"weight_map":"x"})",
           R"({"weight_map":{"a":1}})",
           R"({"weight_map":{"a":null}})",
           R"({"weight_map":{"a":[]}})",
           R"({"weight_map":{"a":{}}})",
           R"({"weight_map":{"a":["m.safetensors"]}})",
           R"({"weight_map":{"a":"m.safetensors"},"weight_map":{"b":"m.safetensors"}})",
           R"({"weight_map":{"a":"m.safetensors","a":"m.safetensors"}})",
           R"({"weight_map":{"a":"../m.safetensors"}})",
           R"({"weight_map":{"a":"/etc/m.safetensors"}})",
           R"({"weight_map":{"a":"x/m.safetensors"}})",
           R"({"weight_map":{"a":"x\\m.safetensors"}})",
           R"({"weight_map":{"a":"m\u0000.safetensors"}})",
           R"({"weight_map":{"a":"m\n.safetensors"}})",
           R"({"weight_map":{"a":""}})",
           R"({"weight_map":{"a":".."}})",
           R"({"weight_map":{"a":"m.bin"}})",
           R"({"weight_map":{"":"m.safetensors"}})",
           R"({"weight_map":{"\u001b":"m.safetensors"}})",
           R"({"weight_map":{"a":")" + long_name + R"(.safetensors"}})",
           R"({"weight_map":{"a":"m.safetensors"})",
           R"({"weight_map":{"a":"m.safetensors"}}x)",
           std::string(100'000, '[')}) {
    const auto index = parse_safetensors_index(text, "index");
    ASSERT_FALSE(index) << text.substr(0, 100);
    EXPECT_EQ(index.error().code, ErrorCode::kCorrupt) << text.substr(0, 100);
    EXPECT_THAT(index.error().message, ::testing::StartsWith("index: "));
  }
}

TEST(NamesTest, Utf8) {
  for (const char* good : {"", "a", "\xc3\xa9", "\xe2\x96\x81", "\xf0\x9f\xa4\x97",
                           "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80"})
    EXPECT_TRUE(is_utf8(good)) << printable(good);
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x80\x80", "\xe2\x96",
                          "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xff", "\xc3\x28", "\xf0\x9f\xa4"})
    EXPECT_FALSE(is_utf8(bad)) << printable(bad);
}

}  // namespace
}  // namespace sluice::io
