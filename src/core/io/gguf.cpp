// A cursor that checks every length against the real file before it allocates, and the reader
// built on it.
#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/checked.h"
#include "io/names.h"

namespace sluice::io {
namespace {

using numerics::dtype_info;
using numerics::shape_text;

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kArrayDepthMax = 8;
constexpr uint64_t kPartsMax = 65535;  // split.count is a u16 as llama.cpp writes it
constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kAlignmentMin = 8;
constexpr uint64_t kAlignmentMax = 1 << 20;
constexpr size_t kKeyBytesMax = 65535;  // the format's own limit
constexpr uint32_t kDimensionsMax = 4;  // GGML_MAX_DIMS
// The shortest metadata entry and tensor description; they bound the counts.
constexpr uint64_t kEntryBytesMin = 8 + 1 + 4 + 1;
constexpr uint64_t kTensorBytesMin = 8 + 1 + 4 + 8 + 4 + 8;

// 0 for strings and arrays, nothing for unknown types.
std::optional<size_t> fixed_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool: return 1;
    case GgufType::kU16:
    case GgufType::kI16: return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32: return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return std::nullopt;
}

uint64_t load_le(const char* at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i)
    value |= uint64_t{static_cast<unsigned char>(at[i])} << (8 * i);
  return value;
}

std::optional<uint64_t> as_unsigned(GgufType type, uint64_t bits) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kU16:
    case GgufType::kU32:
    case GgufType::kU64: return bits;
    default: return std::nullopt;
  }
}

std::optional<int64_t> as_signed(GgufType type, uint64_t bits) {
  switch (type) {
    case GgufType::kI8: return static_cast<int8_t>(bits);
    case GgufType::kI16: return static_cast<int16_t>(bits);
    case GgufType::kI32: return static_cast<int32_t>(bits);
    case GgufType::kI64: return static_cast<int64_t>(bits);
    default: return std::nullopt;
  }
}

// Sequential reads through one buffer. Every take() is checked against what is left of the header,
// which is the file's length or the limit, whichever is smaller.
class Cursor {
 public:
  explicit Cursor(const ByteSource& source)
      : source_(source), limit_(std::min(source.size(), kGgufHeaderBytesMax)) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return limit_ - position_; }
  const std::string& label() const { return source_.label(); }
  Digest digest() const { return hasher_.finish(); }

  Status take(std::span<char> out) {
    SLUICE_TRY(require(out.size()));
    while (!out.empty()) {
      if (buffer_at_ == buffer_.size()) SLUICE_TRY(refill());
      const size_t count = std::min(out.size(), buffer_.size() - buffer_at_);
      std::memcpy(out.data(), buffer_.data() + buffer_at_, count);
      hasher_.update(std::string_view(out.data(), count));
      buffer_at_ += count;
      position_ += count;
      out = out.subspan(count);
    }
    return {};
  }
  Result<uint64_t> unsigned_le(size_t bytes) {
    char raw[8];
    SLUICE_TRY(take(std::span(raw).first(bytes)));
    return load_le(raw, bytes);
  }
  Result<uint32_t> u32() {
    SLUICE_ASSIGN(const uint64_t value, unsigned_le(4));
    return static_cast<uint32_t>(value);
  }
  Result<uint64_t> u64() { return unsigned_le(8); }

  // Past bytes that nobody needs; they count for the digest.
  Status skip(uint64_t bytes) {
    SLUICE_TRY(require(bytes));
    char sink[4096];
    while (bytes != 0) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(bytes, sizeof sink));
      SLUICE_TRY(take(std::span(sink).first(count)));
      bytes -= count;
    }
    return {};
  }

  Result<std::string> string(std::string_view what, uint64_t bytes_max) {
    const uint64_t at = position_;
    SLUICE_ASSIGN(const uint64_t bytes, u64());
    if (bytes > left() || bytes > bytes_max)
      return fail(ErrorCode::kCorrupt, "{}: {} at offset {} claims {} bytes, {} are possible",
                  label(), what, at, bytes, std::min(left(), bytes_max));
    std::string text(static_cast<size_t>(bytes), '\0');
    SLUICE_TRY(take(text));
    return text;
  }

 private:
  Status require(uint64_t bytes) const {
    if (bytes <= left()) return {};
    return limit_ == source_.size()
               ? fail(ErrorCode::kCorrupt, "{}: the file ends inside its header, at offset {}",
                      label(), limit_)
               : fail(ErrorCode::kCorrupt, "{}: the header is longer than {} bytes", label(),
                      limit_);
  }
  Status refill() {
    buffer_.resize(static_cast<size_t>(std::min<uint64_t>(left(), 64 * 1024)));
    buffer_at_ = 0;
    return source_.read_at(position_, std::as_writable_bytes(std::span(buffer_)));
  }

  const ByteSource& source_;
  const uint64_t limit_;
  uint64_t position_ = 0;
  std::vector<char> buffer_;
  size_t buffer_at_ = 0;
  Hasher hasher_;
};

Result<GgufType> read_type(Cursor& in, std::string_view key) {
  const uint64_t at = in.position();
  SLUICE_ASSIGN(const uint32_t number, in.u32());
  if (fixed_bytes(static_cast<GgufType>(number))) return static_cast<GgufType>(number);
  return fail(ErrorCode::kCorrupt, "{}: key {} at offset {} has the unknown value type {}",
              in.label(), printable(key), at, number);
}

std::unexpected<Error> not_bool(const Cursor& in, std::string_view key, uint64_t value) {
  return fail(ErrorCode::kCorrupt, "{}: key {} should be a boolean, found byte {}", in.label(),
              printable(key), value);
}

struct ArrayClaim {
  GgufType element;
  uint64_t count;
  uint64_t bytes;  // at least, of all elements; exact for numbers
};

// Type and count of an array, held against the bytes that are left.
Result<ArrayClaim> read_array_claim(Cursor& in, std::string_view key) {
  constexpr uint64_t kArrayBytesMin = 4 + 8, kStringBytesMin = 8;
  SLUICE_ASSIGN(const GgufType element, read_type(in, key));
  const uint64_t at = in.position();
  SLUICE_ASSIGN(const uint64_t count, in.u64());
  const uint64_t element_bytes = element == GgufType::kString  ? kStringBytesMin
                                 : element == GgufType::kArray ? kArrayBytesMin
                                                               : *fixed_bytes(element);
  const auto bytes = checked_mul(count, element_bytes);
  if (!bytes || *bytes > in.left())
    return fail(ErrorCode::kCorrupt,
                "{}: key {} at offset {} claims an array of {} elements, {} bytes are left",
                in.label(), printable(key), at, count, in.left());
  return ArrayClaim{element, count, *bytes};
}

Status skip_elements(Cursor& in, std::string_view key, const ArrayClaim& claim, int depth) {
  if (depth > kArrayDepthMax)
    return fail(ErrorCode::kUnsupported, "{}: key {} nests arrays more than {} deep", in.label(),
                printable(key), kArrayDepthMax);
  if (claim.element != GgufType::kString && claim.element != GgufType::kArray)
    return in.skip(claim.bytes);
  for (uint64_t i = 0; i < claim.count; ++i) {
    if (claim.element == GgufType::kString) {
      SLUICE_ASSIGN(const uint64_t length, in.u64());
      SLUICE_TRY(in.skip(length));
    } else {
      SLUICE_ASSIGN(const ArrayClaim inner, read_array_claim(in, key));
      SLUICE_TRY(skip_elements(in, key, inner, depth + 1));
    }
  }
  return {};
}

Result<GgufArray> read_array(Cursor& in, std::string_view key) {
  SLUICE_ASSIGN(const ArrayClaim claim, read_array_claim(in, key));
  const auto& [element, count, bytes] = claim;
  if (element == GgufType::kArray) {
    SLUICE_TRY(skip_elements(in, key, claim, 1));
    return GgufArray(GgufType::kArray, std::string());
  }
  if (element != GgufType::kString) {
    std::string raw(static_cast<size_t>(bytes), '\0');
    SLUICE_TRY(in.take(raw));
    if (element == GgufType::kBool)
      for (const char value : raw)
        if (value != 0 && value != 1) return not_bool(in, key, static_cast<unsigned char>(value));
    return GgufArray(element, std::move(raw));
  }
  std::string text;
  std::vector<uint32_t> ends;
  ends.reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t string_at = in.position();
    SLUICE_ASSIGN(const uint64_t length, in.u64());
    if (length > in.left())
      return fail(ErrorCode::kCorrupt, "{}: key {}, string {} at offset {} claims {} bytes of {}",
                  in.label(), printable(key), i, string_at, length, in.left());
    const size_t begin = text.size();
    text.resize(begin + static_cast<size_t>(length));
    SLUICE_TRY(in.take(std::span(text).subspan(begin)));
    ends.push_back(static_cast<uint32_t>(text.size()));  // below kGgufHeaderBytesMax
  }
  return GgufArray(std::move(text), std::move(ends));
}

Result<GgufValue> read_value(Cursor& in, GgufType type, std::string_view key) {
  if (type == GgufType::kArray) return read_array(in, key);
  if (type == GgufType::kString) return in.string("a string", kGgufHeaderBytesMax);
  SLUICE_ASSIGN(const uint64_t bits, in.unsigned_le(*fixed_bytes(type)));
  if (type == GgufType::kF32) return std::bit_cast<float>(static_cast<uint32_t>(bits));
  if (type == GgufType::kF64) return std::bit_cast<double>(bits);
  if (type == GgufType::kBool) {
    if (bits > 1) return not_bool(in, key, bits);
    return bits == 1;
  }
  if (const auto value = as_unsigned(type, bits)) return *value;
  return *as_signed(type, bits);
}

Status read_metadata(Cursor& in, uint64_t count, GgufHeader& header) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = in.position();
    SLUICE_ASSIGN(std::string key, in.string("a metadata key", kKeyBytesMax));
    if (key.empty() || !is_utf8(key))
      return fail(ErrorCode::kCorrupt, "{}: metadata key {} at offset {} is empty or not UTF-8",
                  in.label(), printable(key), at);
    SLUICE_ASSIGN(const GgufType type, read_type(in, key));
    SLUICE_ASSIGN(GgufValue value, read_value(in, type, key));
    const auto [place, added] = header.metadata.emplace(std::move(key), std::move(value));
    if (!added)
      return fail(ErrorCode::kCorrupt, "{}: metadata key {} at offset {} appears twice", in.label(),
                  printable(place->first), at);
  }
  return {};
}

Result<StoredTensor> read_tensor(Cursor& in, uint32_t file) {
  const uint64_t at = in.position();
  StoredTensor tensor;
  tensor.file = file;
  SLUICE_ASSIGN(tensor.info.name, in.string("a tensor name", kTensorNameBytesMax));
  SLUICE_TRY(check_tensor_name(tensor.info.name, in.label()));
  const auto context = [&] {
    return fmt::format("{}: tensor \"{}\" (described at offset {})", in.label(), tensor.info.name,
                       at);
  };
  SLUICE_ASSIGN(const uint32_t dimensions, in.u32());
  if (dimensions == 0 || dimensions > kDimensionsMax)
    return fail(ErrorCode::kCorrupt, "{}: {} dimensions, expected 1 to {}", context(), dimensions,
                kDimensionsMax);
  // The file lists the fastest axis first; Shape lists it last.
  tensor.info.shape.resize(dimensions);
  for (uint32_t i = dimensions; i-- > 0;) {
    SLUICE_ASSIGN(tensor.info.shape[i], in.u64());
  }
  SLUICE_ASSIGN(const uint32_t type, in.u32());
  SLUICE_ASSIGN(tensor.offset, in.u64());
  const auto dtype = numerics::dtype_from_ggml(type);
  if (!dtype)
    return fail(ErrorCode::kUnsupported,
                "{}: type {} ({}) is not read by Sluice: ggml has retired it, keeps it for its own "
                "arithmetic, or has added it since; quantize the model again as another type",
                context(), numerics::ggml_type_name(type), type);
  tensor.info.dtype = *dtype;
  const auto bytes = numerics::tensor_bytes(*dtype, tensor.info.shape);
  if (!bytes)
    return fail(ErrorCode::kCorrupt, "{}: {} {} overflows or is no whole number of blocks",
                context(), dtype_info(*dtype).name, shape_text(tensor.info.shape));
  tensor.bytes = *bytes;
  return tensor;
}

Result<uint64_t> alignment_of(const GgufHeader& header, const std::string& label) {
  const GgufValue* value = header.find("general.alignment");
  if (value == nullptr) return kAlignmentDefault;
  const auto* alignment = std::get_if<uint64_t>(value);
  if (alignment == nullptr)
    return fail(ErrorCode::kCorrupt, "{}: general.alignment should be an unsigned integer", label);
  if (!std::has_single_bit(*alignment) || *alignment < kAlignmentMin || *alignment > kAlignmentMax)
    return fail(ErrorCode::kCorrupt,
                "{}: general.alignment should be a power of two from {} to {}, found {}", label,
                kAlignmentMin, kAlignmentMax, *alignment);
  return *alignment;
}

// An unsigned or signed integer (llama.cpp writes split.tensors.count as i32) from 0 to high.
Result<std::optional<uint64_t>> split_number(const GgufHeader& header, std::string_view key,
                                             uint64_t high, const std::string& label) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<uint64_t> number;
  if (const auto* plain = std::get_if<uint64_t>(value)) number = *plain;
  if (const auto* with_sign = std::get_if<int64_t>(value); with_sign && *with_sign >= 0)
    number = static_cast<uint64_t>(*with_sign);
  if (number && *number <= high) return number;
  return fail(ErrorCode::kCorrupt, "{}: {} should be an integer from 0 to {}", label, key, high);
}

Result<GgufSplit> read_split(const GgufHeader& header, const std::string& label) {
  SLUICE_ASSIGN(const auto count, split_number(header, "split.count", kPartsMax, label));
  SLUICE_ASSIGN(const auto index, split_number(header, "split.no", kPartsMax, label));
  GgufSplit split;
  SLUICE_ASSIGN(split.tensors, split_number(header, "split.tensors.count", INT32_MAX, label));
  split.count = static_cast<uint32_t>(std::max<uint64_t>(count.value_or(1), 1));
  split.index = static_cast<uint32_t>(index.value_or(0));
  if (split.index < split.count) return split;
  return fail(ErrorCode::kCorrupt, "{}: split.no is {}, split.count {}", label, split.index,
              split.count);
}

Status place_tensors(GgufHeader& header, uint64_t alignment, const ByteSource& source) {
  for (StoredTensor& tensor : header.tensors) {
    if (tensor.offset % alignment != 0)
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor \"{}\" begins at data offset {}, no multiple of {}", source.label(),
                  tensor.info.name, tensor.offset, alignment);
    const auto begin = checked_add(header.data_start, tensor.offset);
    const auto end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
    if (!end || *end > source.size())
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor \"{}\" needs {} bytes at data offset {}, the file has {} bytes in "
                  "all (truncated?)",
                  source.label(), tensor.info.name, tensor.bytes, tensor.offset, source.size());
    tensor.offset = *begin;
  }
  std::vector<uint32_t> order(header.tensors.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto& tensors = header.tensors;
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::tie(tensors[a].offset, tensors[a].bytes) <
           std::tie(tensors[b].offset, tensors[b].bytes);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const StoredTensor& before = tensors[order[i - 1]];
    const StoredTensor& after = tensors[order[i]];
    if (after.offset < before.offset + before.bytes)
      return fail(ErrorCode::kCorrupt, "{}: tensors \"{}\" and \"{}\" overlap at offset {}",
                  source.label(), before.info.name, after.info.name, after.offset);
  }
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return tensors[a].info.name < tensors[b].info.name; });
  for (size_t i = 1; i < order.size(); ++i)
    if (tensors[order[i - 1]].info.name == tensors[order[i]].info.name)
      return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" appears twice", source.label(),
                  tensors[order[i]].info.name);
  return {};
}

Result<uint32_t> read_version(Cursor& in) {
  SLUICE_ASSIGN(const uint32_t magic, in.u32());
  if (magic != kMagic)
    return fail(ErrorCode::kCorrupt, "{}: does not begin with \"GGUF\"", in.label());
  SLUICE_ASSIGN(const uint32_t version, in.u32());
  if (version == 1)
    return fail(ErrorCode::kUnsupported,
                "{}: GGUF version 1, a legacy format; convert it with a newer llama.cpp",
                in.label());
  if (version != 0 && (version & 0xffff) == 0)
    return fail(ErrorCode::kUnsupported,
                "{}: a big-endian GGUF file; convert it with "
                "gguf-convert-endian",
                in.label());
  if (version != 2 && version != 3)
    return fail(ErrorCode::kUnsupported, "{}: GGUF version {}, expected 2 or 3", in.label(),
                version);
  return version;
}

Result<uint64_t> read_count(Cursor& in, std::string_view what, uint64_t bytes_min) {
  const uint64_t at = in.position();
  SLUICE_ASSIGN(const uint64_t count, in.u64());
  if (count > in.left() / bytes_min)
    return fail(ErrorCode::kCorrupt, "{}: offset {} claims {} {}, {} bytes are left for them",
                in.label(), at, count, what, in.left());
  return count;
}

}  // namespace

size_t GgufArray::size() const {
  if (element_ == GgufType::kArray) return 0;
  return element_ == GgufType::kString ? ends_.size() : bytes_.size() / *fixed_bytes(element_);
}

std::optional<std::string_view> GgufArray::text(size_t index) const {
  if (element_ != GgufType::kString) return std::nullopt;
  const size_t begin = index == 0 ? 0 : ends_[index - 1];
  return std::string_view(bytes_).substr(begin, ends_[index] - begin);
}

std::optional<int64_t> GgufArray::integer(size_t index) const {
  if (element_ == GgufType::kString) return std::nullopt;
  const size_t width = *fixed_bytes(element_);
  const uint64_t bits = load_le(bytes_.data() + index * width, width);
  if (element_ == GgufType::kBool) return static_cast<int64_t>(bits);
  if (const auto value = as_signed(element_, bits)) return value;
  const auto value = as_unsigned(element_, bits);
  if (!value || *value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(*value);
}

std::optional<double> GgufArray::number(size_t index) const {
  if (element_ == GgufType::kF32)
    return std::bit_cast<float>(static_cast<uint32_t>(load_le(bytes_.data() + index * 4, 4)));
  if (element_ == GgufType::kF64)
    return std::bit_cast<double>(load_le(bytes_.data() + index * 8, 8));
  return std::nullopt;
}

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

const StoredTensor* GgufHeader::find_tensor(std::string_view name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const StoredTensor& t) { return t.info.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

Result<GgufHeader> read_gguf_header(const ByteSource& source, uint32_t file) {
  Cursor in(source);
  GgufHeader header;
  SLUICE_ASSIGN(header.version, read_version(in));
  SLUICE_ASSIGN(const uint64_t tensor_count, read_count(in, "tensors", kTensorBytesMin));
  SLUICE_ASSIGN(const uint64_t entry_count, read_count(in, "metadata entries", kEntryBytesMin));
  SLUICE_TRY(read_metadata(in, entry_count, header));
  SLUICE_ASSIGN(header.split, read_split(header, source.label()));
  SLUICE_ASSIGN(const uint64_t alignment, alignment_of(header, source.label()));
  for (uint64_t i = 0; i < tensor_count; ++i) {
    SLUICE_ASSIGN(StoredTensor tensor, read_tensor(in, file));
    header.tensors.push_back(std::move(tensor));
  }
  header.data_start = align_up(in.position(), alignment);
  header.digest = in.digest();
  SLUICE_TRY(place_tensors(header, alignment, source));
  return header;
}

}  // namespace sluice::io
