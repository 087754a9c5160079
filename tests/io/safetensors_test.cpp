// Hostile and damaged safetensors headers must end in an error; what we lay out must read back
// exactly, and equally on every run.
#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "build_files.h"

namespace sluice::io {
namespace {

using numerics::DType;
using testing::little_endian;
using testing::safetensors_file;
using testing::source_of;

Result<SafetensorsHeader> read(const std::string& file) {
  return read_safetensors_header(*source_of(file), 0);
}

constexpr const char* kGood =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})";

TEST(SafetensorsTest, ReadsASoundFile) {
  const auto header = read(safetensors_file(kGood, 24));
  ASSERT_TRUE(header) << header.error().message;
  ASSERT_EQ(header->tensors.size(), 2u);
  const uint64_t start = 8 + std::strlen(kGood);
  EXPECT_EQ(header->data_start, start);
  EXPECT_EQ(header->metadata.at("format"), "pt");
  EXPECT_EQ(header->tensors[0].info, (TensorInfo{"a", DType::kF32, {2, 2}}));
  EXPECT_EQ(header->tensors[1].info, (TensorInfo{"b", DType::kBF16, {4}}));
  EXPECT_EQ(header->tensors[1].offset, start + 16);
  EXPECT_EQ(header->tensors[1].bytes, 8u);
  EXPECT_EQ(header->text_digest.size(), 32u);
}

TEST(SafetensorsTest, SoundOddities) {
  struct Case {
    const char* json;
    size_t bytes;
    size_t tensors;
  };
  for (const Case& c : {
           Case{"{}", 0, 0},
           Case{"{}      ", 0, 0},
           // Out of order in the header; empty tensors between others and at the end.
           Case{R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                3, 2},
           Case{R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                R"("z":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1]}})",
                1, 3},
           Case{R"({"a":{"shape":[1,1,1,1,1,1,1,1],"data_offsets":[0,8],"dtype":"C64"}})", 8, 1},
           Case{"{\"caf\xc3\xa9\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
                1},
           Case{R"({"__metadata__":{}, "a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}})",
                1, 1},
       }) {
    const auto header = read(safetensors_file(c.json, c.bytes));
    ASSERT_TRUE(header) << c.json << ": " << header.error().message;
    EXPECT_EQ(header->tensors.size(), c.tensors) << c.json;
  }
}

struct Attack {
  const char* what;
  std::string file;
  ErrorCode code = ErrorCode::kCorrupt;
};

std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets,
                size_t data) {
  return safetensors_file(
      fmt::format(R"({{"t":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets),
      data);
}

std::vector<Attack> attacks() {
  const auto raw = [](uint64_t length, std::string_view rest) {
    return little_endian(length) + std::string(rest);
  };
  const auto json = [](std::string_view text, size_t data) { return safetensors_file(text, data); };
  const auto pair = [&](std::string_view a, std::string_view b, size_t data) {
    return json(fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                            R"("b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                            a, b),
                data);
  };
  const std::string max = "18446744073709551615";
  const std::string f32 = "\"F32\"";
  const std::string deep(100'000, '[');
  const std::string nested = [] {
    std::string text;
    for (int i = 0; i < 70; ++i) text += "{\"a\":";
    return text;
  }();
  return {
      {"empty file", ""},
      {"seven bytes", std::string(7, '\0')},
      {"length alone", raw(0, "")},
      {"length one past the end", raw(3, "{}")},
      {"length 2^63", raw(uint64_t{1} << 63, "{}")},
      {"length 2^64-1", raw(UINT64_MAX, "{}")},
      {"length 2^64-8", raw(UINT64_MAX - 7, "{}")},
      {"length just over the limit", raw(100'000'001, "{}")},
      {"length at the limit, no data", raw(100'000'000, "{}")},
      {"leading space", json(" {}", 0)},
      {"byte order mark", json("\xef\xbb\xbf{}", 0)},
      {"an array", json("[]", 0)},
      {"a pickle", json("\x80\x04K\x01.", 0)},
      {"not UTF-8", json("{\"\xff\":{}}", 0)},
      {"unterminated", json("{\"a\":", 0)},
      {"two objects", json("{}{}", 0)},
      {"deep arrays", json("{\"a\":" + deep, 0)},
      {"deep objects", json(nested, 0)},
      {"data without tensors", json("{}", 1)},
      {"tensor is a number", json(R"({"a":1})", 0)},
      {"tensor is null", json(R"({"a":null})", 0)},
      {"no dtype", json(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1)},
      {"no shape", json(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1)},
      {"no offsets", json(R"({"a":{"dtype":"U8","shape":[1]}})", 1)},
      {"dtype twice",
       json(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1)},
      {"shape twice",
       json(R"({"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", 1)},
      {"unknown key", json(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}})", 1)},
      {"name twice", json(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                          R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                          1)},
      {"name twice by escape", json(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                                    R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                    1)},
      {"empty name", json(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1)},
      {"NUL in a name", json(R"({"a\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1)},
      {"escape sequence in a name",
       json(R"({"\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1)},
      {"C1 control in a name",
       json(R"({"\u009b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1)},
      {"name of 1025 bytes", json("{\"" + std::string(1025, 'n') +
                                      R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                  1)},
      {"metadata twice", json(R"({"__metadata__":{},"__metadata__":{}})", 0)},
      {"metadata key twice", json(R"({"__metadata__":{"a":"","a":""}})", 0)},
      {"metadata value a number", json(R"({"__metadata__":{"a":1}})", 0)},
      {"metadata nested", json(R"({"__metadata__":{"a":{}}})", 0)},
      {"metadata a string", json(R"({"__metadata__":"x"})", 0)},
      {"unknown dtype", one("\"F4\"", "[2]", "[0,1]", 1), ErrorCode::kUnsupported},
      {"GGUF dtype", one("\"Q4_0\"", "[32]", "[0,18]", 18), ErrorCode::kUnsupported},
      {"dtype a number", one("7", "[1]", "[0,4]", 4)},
      {"shape a number", one(f32, "1", "[0,4]", 4)},
      {"shape negative", one(f32, "[-1]", "[0,4]", 4)},
      {"shape minus zero", one(f32, "[-0]", "[0,0]", 0)},
      {"shape fractional", one(f32, "[1.0]", "[0,4]", 4)},
      {"shape 1e400", one(f32, "[1e400]", "[0,4]", 4)},
      {"shape NaN", one(f32, "[NaN]", "[0,4]", 4)},
      {"shape 2^64", one(f32, "[18446744073709551616]", "[0,4]", 4)},
      {"shape string", one(f32, "[\"1\"]", "[0,4]", 4)},
      {"shape nested", one(f32, "[[1]]", "[0,4]", 4)},
      {"shape product overflows to 0", one("\"U8\"", "[4294967296,4294967296]", "[0,0]", 0)},
      {"shape product overflows to 1", one("\"U8\"", "[" + max + "," + max + "]", "[0,1]", 1)},
      {"bytes overflow", one(f32, "[4611686018427387905]", "[0,4]", 4)},
      {"overflow hidden by a zero", one("\"U8\"", "[" + max + "," + max + ",0]", "[0,0]", 0)},
      {"nine axes", one("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), ErrorCode::kUnsupported},
      {"one offset", one(f32, "[1]", "[0]", 4)},
      {"three offsets", one(f32, "[1]", "[0,4,4]", 4)},
      {"no offsets in the list", one(f32, "[1]", "[]", 4)},
      {"offsets reversed", one(f32, "[1]", "[4,0]", 4)},
      {"offset negative", one(f32, "[1]", "[-4,0]", 4)},
      {"offset 1e1", one(f32, "[1]", "[0,4e0]", 4)},
      {"offset true", one(f32, "[1]", "[false,true]", 4)},
      {"end past the file", one(f32, "[2]", "[0,8]", 4)},
      {"end 2^64-1", one("\"U8\"", "[" + max + "]", "[0," + max + "]", 4)},
      {"begin and end 2^64-1", one("\"U8\"", "[0]", "[" + max + "," + max + "]", 0)},
      {"wrong size", one(f32, "[1]", "[0,8]", 8)},
      {"hole at the start", one(f32, "[1]", "[4,8]", 8)},
      {"trailing data", one(f32, "[1]", "[0,4]", 5)},
      {"one byte short", one(f32, "[1]", "[0,4]", 3)},
      {"hole between", pair("[0,4]", "[5,9]", 9)},
      {"overlap", pair("[0,4]", "[2,6]", 6)},
      {"same place", pair("[0,4]", "[0,4]", 4)},
      {"overlap with a hole elsewhere", pair("[1,5]", "[0,4]", 8)},
  };
}

TEST(SafetensorsTest, AttacksAreErrors) {
  for (const Attack& attack : attacks()) {
    const auto header = read(attack.file);
    ASSERT_FALSE(header) << attack.what;
    EXPECT_EQ(header.error().code, attack.code) << attack.what << ": " << header.error().message;
    EXPECT_THAT(header.error().message, ::testing::StartsWith("attack.bin: ")) << attack.what;
    for (const char c : header.error().message)
      EXPECT_GE(static_cast<unsigned char>(c), 0x20) << attack.what;
  }
}

TEST(SafetensorsTest, TruncationAtEveryByteIsAnError) {
  const std::string file = safetensors_file(kGood, 24);
  for (size_t length = 0; length < file.size(); ++length)
    EXPECT_FALSE(read(file.substr(0, length))) << length;
}

TEST(SafetensorsTest, MessagesNameTheTensorAndTheFigures) {
  const auto header = read(one("\"F32\"", "[3, 2]", "[0,20]", 20));
  ASSERT_FALSE(header);
  EXPECT_THAT(header.error().message, ::testing::HasSubstr("\"t\""));
  EXPECT_THAT(header.error().message, ::testing::HasSubstr("[3, 2]"));
  EXPECT_THAT(header.error().message, ::testing::HasSubstr("24 bytes"));
}

TEST(SafetensorsTest, LayoutReadsBack) {
  const std::vector<TensorInfo> tensors = {
      {"m.weight", DType::kU32, {3, 5}},
      {"m.scales", DType::kF16, {3, 1}},
      {"quote\" \\ caf\xc3\xa9", DType::kBF16, {7}},
      {"empty", DType::kF32, {0, 4}},
      {"scalar", DType::kF32, {}},
  };
  const SafetensorsLayout layout = layout_safetensors(tensors);
  EXPECT_EQ(layout.header.size() % kDataAlignment, 0u);
  ASSERT_EQ(layout.offsets.size(), tensors.size());
  const std::string file =
      layout.header + std::string(layout.file_bytes - layout.header.size(), 'x');
  const auto header = read(file);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->data_start, layout.header.size());
  EXPECT_EQ(header->metadata, (std::map<std::string, std::string>{{"format", "mlx"}}));
  ASSERT_EQ(header->tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto found =
        std::find_if(header->tensors.begin(), header->tensors.end(),
                     [&](const StoredTensor& t) { return t.info.name == tensors[i].name; });
    ASSERT_NE(found, header->tensors.end());
    EXPECT_EQ(found->info, tensors[i]);
    EXPECT_EQ(found->offset, layout.offsets[i]);
  }
  EXPECT_EQ(layout_safetensors(tensors).header, layout.header);
}

TEST(SafetensorsTest, LayoutBoundaries) {
  EXPECT_EQ(layout_safetensors({}).file_bytes, kDataAlignment);
  // Names that make the unpadded header end just before, on and after the alignment.
  for (size_t length = 16200; length < 16400; ++length) {
    const TensorInfo tensor{std::string(length, 'n'), DType::kU8, {1}};
    const auto layout = layout_safetensors(std::span(&tensor, 1));
    ASSERT_EQ(layout.header.size() % kDataAlignment, 0u);
    ASSERT_EQ(layout.file_bytes, layout.header.size() + 1);
    uint64_t prefix;
    std::memcpy(&prefix, layout.header.data(), 8);
    ASSERT_EQ(prefix + 8, layout.header.size());
  }
}

}  // namespace
}  // namespace sluice::io
