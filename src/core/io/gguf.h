// The GGUF container, versions 2 and 3, little endian: strict reading of metadata and tensor
// places. What the metadata means for a model is gguf_config.h's business.
// Layout: docs/formats.md#gguf
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "io/byte_source.h"
#include "io/tensor_info.h"

namespace sluice::io {

// Metadata and tensor descriptions together; real files stay below 20 MB (250,000 tokens, merges).
inline constexpr uint64_t kGgufHeaderBytesMax = 100'000'000;

// The format's own numbers.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Elements of one type, kept as compactly as in the file: a tokenizer has 250,000 of them. Arrays
// of arrays, which nothing here needs, are skipped when read: element() is kArray, size() 0.
class GgufArray {
 public:
  GgufArray(GgufType element, std::string bytes) : element_(element), bytes_(std::move(bytes)) {}
  GgufArray(std::string text, std::vector<uint32_t> ends)
      : element_(GgufType::kString), bytes_(std::move(text)), ends_(std::move(ends)) {}

  GgufType element() const { return element_; }
  size_t size() const;
  // index < size(). Each returns nothing when the element type is another kind.
  std::optional<std::string_view> text(size_t index) const;
  std::optional<int64_t> integer(size_t index) const;  // any integer type that fits, or bool
  std::optional<double> number(size_t index) const;    // f32 or f64
  bool operator==(const GgufArray&) const = default;

 private:
  GgufType element_;
  std::string bytes_;           // numbers as stored, or the strings one after another
  std::vector<uint32_t> ends_;  // of each string in bytes_
};

// Integers of all widths become uint64_t or int64_t; the two float widths stay apart, because the
// decimal that an f32 was written from is found from the f32.
using GgufValue = std::variant<uint64_t, int64_t, float, double, bool, std::string, GgufArray>;

// What a file says about the set it is part of; a file of its own is part 0 of 1.
struct GgufSplit {
  uint32_t index = 0;               // split.no
  uint32_t count = 1;               // split.count
  std::optional<uint64_t> tensors;  // split.tensors.count: of the whole model
};

struct GgufHeader {
  uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  // In the file's order. Shapes row-major (the reverse of GGUF's); offsets from the file's start.
  std::vector<StoredTensor> tensors;
  uint64_t data_start = 0;
  GgufSplit split;
  Digest digest;  // of every byte before the data section's padding

  // nullptr when the key is absent.
  const GgufValue* find(std::string_view key) const;
  const StoredTensor* find_tensor(std::string_view name) const;
};

// One file, whatever part of a model it is (gguf_set.h opens models). file: the index to record in
// each StoredTensor. kCorrupt for bytes that contradict the format; kUnsupported for version 1,
// big-endian files and tensor types that Sluice does not decode.
Result<GgufHeader> read_gguf_header(const ByteSource& source, uint32_t file);

}  // namespace sluice::io
