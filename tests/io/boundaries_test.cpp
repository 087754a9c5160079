// Every number in a safetensors or GGUF header at the edges of every integer type, and both files
// cut at every byte: an error that names the file, or what an untouched file gives.
#include <gmock/gmock.h>

#include <algorithm>

#include "build_files.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace sluice::io {
namespace {

using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::little_endian;
using testing::source_of;
using testing::TemporaryFolder;

// As JSON may spell them, sound or not.
const char* const kJsonEdges[] = {"0",
                                  "1",
                                  "2",
                                  "-1",
                                  "127",
                                  "128",
                                  "255",
                                  "256",
                                  "32767",
                                  "65536",
                                  "2147483647",
                                  "2147483648",
                                  "4294967295",
                                  "4294967296",
                                  "9007199254740992",
                                  "9007199254740993",
                                  "4611686018427387904",
                                  "9223372036854775807",
                                  "9223372036854775808",
                                  "18446744073709551615",
                                  "18446744073709551616",
                                  "1e400",
                                  "-1e400",
                                  "1e-400",
                                  "1.5",
                                  "1e2",
                                  "-0",
                                  "-0.0",
                                  "NaN",
                                  "Infinity",
                                  "0x10",
                                  "null",
                                  "true",
                                  "\"1\"",
                                  "[]",
                                  "{}"};

constexpr uint64_t kEdges[] = {0,          1,          2,          7,          8,
                               255,        256,        65535,      65536,      0x7fffffff,
                               0x80000000, 0xffffffff, 1ull << 32, 1ull << 53, (1ull << 53) + 1,
                               1ull << 61, 1ull << 62, 1ull << 63, ~0ull - 31, ~0ull};

// The whole of what a reader finds, to be compared.
template <class Header>
std::string described(const Header& header) {
  std::string text = fmt::format("{}:", header.data_start);
  for (const StoredTensor& tensor : header.tensors)
    text += fmt::format(" {} {} {} {} {}", tensor.info.name, dtype_info(tensor.info.dtype).name,
                        numerics::shape_text(tensor.info.shape), tensor.offset, tensor.bytes);
  return text;
}

template <class Header>
void expect_error_or(const Result<Header>& found, const std::string& sound) {
  if (found) {
    EXPECT_EQ(described(*found), sound);
  } else {
    EXPECT_THAT(found.error().message, HasSubstr("attack.bin"));
    EXPECT_LT(found.error().message.size(), 500u);
  }
}

// $ marks the number at hand.
std::string filled(std::string text, std::string_view number) {
  const size_t place = text.find('$');
  return text.replace(place, 1, number);
}

TEST(Boundaries, SafetensorsNumbers) {
  const std::string templates[] = {
      R"({"t":{"dtype":"F32","shape":[$,4],"data_offsets":[0,32]}})",
      R"({"t":{"dtype":"F32","shape":[2,$],"data_offsets":[0,32]}})",
      R"({"t":{"dtype":"F32","shape":[2,4],"data_offsets":[$,32]}})",
      R"({"t":{"dtype":"F32","shape":[2,4],"data_offsets":[0,$]}})",
      R"({"t":{"dtype":"F32","shape":$,"data_offsets":[0,32]}})",
      R"({"t":{"dtype":"F32","shape":[2,4],"data_offsets":$}})",
      R"({"t":{"dtype":$,"shape":[2,4],"data_offsets":[0,32]}})",
      R"({"t":{"dtype":"F32","shape":[0,$],"data_offsets":[0,0]},"u":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}})",
  };
  int cases = 0;
  for (const std::string& text : templates) {
    for (const char* edge : kJsonEdges) {
      const std::string json = filled(text, edge);
      SCOPED_TRACE(json);
      const auto header =
          read_safetensors_header(*source_of(testing::safetensors_file(json, 32)), 0);
      ++cases;
      if (!header) {
        EXPECT_THAT(header.error().message, HasSubstr("attack.bin"));
        EXPECT_LT(header.error().message.size(), 500u);
        continue;
      }
      uint64_t bytes = 0;
      for (const StoredTensor& tensor : header->tensors) bytes += tensor.bytes;
      EXPECT_EQ(bytes, 32u);
    }
  }
  EXPECT_GE(cases, 200);
}

TEST(Boundaries, SafetensorsLength) {
  const std::string sound =
      testing::safetensors_file(R"({"t":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}})", 32);
  const auto expected = read_safetensors_header(*source_of(sound), 0);
  ASSERT_TRUE(expected);
  for (const uint64_t edge : kEdges) {
    SCOPED_TRACE(edge);
    expect_error_or(read_safetensors_header(*source_of(little_endian(edge) + sound.substr(8)), 0),
                    described(*expected));
  }
}

// A file with every kind of number in it.
std::string gguf_file() {
  GgufBuilder file;
  file.text("general.architecture", "llama")
      .u32("llama.block_count", 2)
      .strings("tokenizer.ggml.tokens", {"a", "bc"})
      .array<int32_t>("tokenizer.ggml.token_type", 5, {1, 2});
  file.tensor("one", {32, 2}, 2, 0).tensor("two", {3, 5}, 0, 64);
  file.data = std::string(64 + 60, 'x');
  return file.build();
}

// Every place where a number could begin, not only those where one does: wider than a list of
// fields, and it cannot go out of date.
TEST(Boundaries, GgufNumbersAtEveryByte) {
  const std::string sound = gguf_file();
  const auto expected = read_gguf_header(*source_of(sound), 0);
  ASSERT_TRUE(expected) << expected.error().message;
  int cases = 0, refused = 0;
  for (size_t at = 0; at + 8 <= expected->data_start; ++at) {
    for (const uint64_t edge : kEdges) {
      for (const size_t width : {4u, 8u}) {
        std::string damaged = sound;
        damaged.replace(at, width, little_endian(edge).substr(0, width));
        SCOPED_TRACE(fmt::format("{} in {} bytes at {}", edge, width, at));
        const auto header = read_gguf_header(*source_of(damaged), 0);
        ++cases;
        if (!header) {
          ++refused;
          ASSERT_THAT(header.error().message, HasSubstr("attack.bin"));
          ASSERT_LT(header.error().message.size(), 500u);
          continue;
        }
        for (const StoredTensor& tensor : header->tensors) {
          ASSERT_GE(tensor.offset, header->data_start);
          ASSERT_LE(tensor.offset, damaged.size());
          ASSERT_LE(tensor.bytes, damaged.size() - tensor.offset);
        }
      }
    }
  }
  EXPECT_GT(cases, 10'000);
  EXPECT_GT(refused, cases / 2);
}

TEST(Truncation, SafetensorsAtEveryByte) {
  const std::string sound = testing::safetensors_file(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[32,35]}})",
      35);
  ASSERT_TRUE(read_safetensors_header(*source_of(sound), 0));
  for (size_t bytes = 0; bytes < sound.size(); ++bytes) {
    const auto header = read_safetensors_header(*source_of(sound.substr(0, bytes)), 0);
    ASSERT_FALSE(header) << bytes;
    EXPECT_THAT(header.error().message, HasSubstr("attack.bin"));
  }
}

TEST(Truncation, GgufAtEveryByte) {
  const std::string sound = gguf_file();
  ASSERT_TRUE(read_gguf_header(*source_of(sound), 0));
  for (size_t bytes = 0; bytes < sound.size(); ++bytes) {
    const auto header = read_gguf_header(*source_of(sound.substr(0, bytes)), 0);
    ASSERT_FALSE(header) << bytes;
    EXPECT_THAT(header.error().message, HasSubstr("attack.bin"));
  }
}

// The files around the weights, as a folder is opened.
TEST(Truncation, ModelFolderAtEveryByte) {
  const std::pair<const char*, std::string> files[] = {
      {"config.json", R"({"model_type":"llama","hidden_size":8})"},
      {"model.safetensors.index.json",
       R"({"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})"},
      {"model-1.safetensors",
       testing::safetensors_file(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3)},
      {"model-2.safetensors",
       testing::safetensors_file(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3)},
  };
  const TemporaryFolder folder;
  for (const auto& [name, text] : files) folder.write(name, text);
  const auto whole = open_checkpoint(folder.path());
  ASSERT_TRUE(whole) << whole.error().message;
  for (const auto& [name, text] : files) {
    for (size_t bytes = 0; bytes < text.size(); ++bytes) {
      folder.write(name, text.substr(0, bytes));
      const auto checkpoint = open_checkpoint(folder.path());
      ASSERT_FALSE(checkpoint) << name << " cut at " << bytes;
      EXPECT_THAT(checkpoint.error().message, HasSubstr(name));
    }
    folder.write(name, text);
  }
}

}  // namespace
}  // namespace sluice::io
