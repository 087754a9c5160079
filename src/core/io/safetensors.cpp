// The strict header reader is an event handler over the JSON facade: it never holds a tree, only
// the records themselves. The writer is the reader's mirror.
#include "io/safetensors.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/checked.h"
#include "base/digest.h"
#include "base/json.h"
#include "io/names.h"

namespace sluice::io {
namespace {

using numerics::dtype_info;
using numerics::shape_text;

constexpr std::string_view kMetadataKey = "__metadata__";

// Collects records {"name": {"dtype", "shape", "data_offsets"}}; any other structure stops it with
// a reason. Offsets are kept relative to the data section, in StoredTensor::offset and ::bytes
// (the end, until finish_tensor).
class HeaderHandler : public JsonSax {
 public:
  HeaderHandler(const std::string& label, uint32_t file) : label_(label), file_(file) {}

  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::optional<Error> error_;

  bool start_object(size_t) override {
    switch (state_) {
      case State::kStart: state_ = State::kNames; return true;
      case State::kTensorValue:
        state_ = State::kFields;
        seen_ = 0;
        return true;
      case State::kMetadataValue: state_ = State::kMetadata; return true;
      default: return unexpected("an object");
    }
  }
  bool end_object() override {
    switch (state_) {
      case State::kNames: state_ = State::kEnd; return true;
      case State::kFields: state_ = State::kNames; return finish_tensor();
      case State::kMetadata: state_ = State::kNames; return true;
      default: return unexpected("the end of an object");
    }
  }
  bool key(string_t& text) override {
    switch (state_) {
      case State::kNames: return name_key(text);
      case State::kFields: return field_key(text);
      case State::kMetadata:
        metadata_key_ = text;
        state_ = State::kMetadataText;
        return true;
      default: return unexpected("a key");
    }
  }
  bool string(string_t& text) override {
    if (state_ == State::kMetadataText) {
      state_ = State::kMetadata;
      if (metadata_.emplace(std::move(metadata_key_), std::move(text)).second) return true;
      return stop(ErrorCode::kCorrupt, "__metadata__ has a key twice");
    }
    if (state_ != State::kDtype) return unexpected("a string");
    const auto dtype = numerics::dtype_from_safetensors(text);
    if (!dtype) return stop(ErrorCode::kUnsupported, "dtype {} is not known", printable(text));
    current_.info.dtype = *dtype;
    state_ = State::kFields;
    return true;
  }
  bool start_array(size_t) override {
    if (state_ == State::kShape)
      state_ = State::kShapeItems;
    else if (state_ == State::kOffsets)
      state_ = State::kOffsetItems;
    else
      return unexpected("an array");
    return true;
  }
  bool end_array() override {
    if (state_ == State::kOffsetItems && offset_count_ != 2)
      return stop(ErrorCode::kCorrupt, "data_offsets has {} elements instead of 2", offset_count_);
    if (state_ != State::kShapeItems && state_ != State::kOffsetItems)
      return unexpected("the end of an array");
    state_ = State::kFields;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShapeItems) {
      if (current_.info.shape.size() == kRankMax)
        return stop(ErrorCode::kUnsupported, "more than {} axes", kRankMax);
      current_.info.shape.push_back(value);
      return true;
    }
    if (state_ == State::kOffsetItems) {
      if (offset_count_ < 2) (offset_count_ == 0 ? current_.offset : current_.bytes) = value;
      ++offset_count_;
      return true;
    }
    return unexpected("a number");
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a fractional number");
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  enum class State {
    kStart,
    kNames,
    kTensorValue,
    kFields,
    kDtype,
    kShape,
    kShapeItems,
    kOffsets,
    kOffsetItems,
    kMetadataValue,
    kMetadata,
    kMetadataText,
    kEnd,
  };
  enum Field : unsigned { kDtypeField = 1, kShapeField = 2, kOffsetsField = 4, kAllFields = 7 };

  template <class... Args>
  bool stop(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
    error_ = Error{code, fmt::format("{}: tensor {}: {}", label_, printable(current_.info.name),
                                     fmt::format(format, std::forward<Args>(args)...))};
    return false;
  }
  bool unexpected(std::string_view found) {
    if (current_.info.name.empty()) {
      error_ = Error{
          ErrorCode::kCorrupt,
          fmt::format("{}: the header should be an object of tensors, found {}", label_, found)};
      return false;
    }
    return stop(ErrorCode::kCorrupt, "found {} where the format has none", found);
  }

  bool name_key(string_t& text) {
    if (text == kMetadataKey) {
      current_.info.name = kMetadataKey;
      state_ = State::kMetadataValue;
      if (!std::exchange(metadata_seen_, true)) return true;
      return stop(ErrorCode::kCorrupt, "appears twice");
    }
    if (auto status = check_tensor_name(text, label_); !status) {
      error_ = std::move(status).error();
      return false;
    }
    current_ = {};
    current_.info.name = text;
    current_.file = file_;
    state_ = State::kTensorValue;
    return true;
  }
  bool field_key(const string_t& text) {
    unsigned field;
    if (text == "dtype") {
      field = kDtypeField;
      state_ = State::kDtype;
    } else if (text == "shape") {
      field = kShapeField;
      state_ = State::kShape;
    } else if (text == "data_offsets") {
      field = kOffsetsField;
      state_ = State::kOffsets;
      offset_count_ = 0;
    } else {
      return stop(ErrorCode::kCorrupt, "unknown key {}", printable(text));
    }
    if ((seen_ & field) != 0) return stop(ErrorCode::kCorrupt, "duplicate key {}", text);
    seen_ |= field;
    return true;
  }
  bool finish_tensor() {
    if (seen_ != kAllFields)
      return stop(ErrorCode::kCorrupt, "{} is missing",
                  (seen_ & kDtypeField) == 0   ? "dtype"
                  : (seen_ & kShapeField) == 0 ? "shape"
                                               : "data_offsets");
    const uint64_t begin = current_.offset, end = current_.bytes;
    if (begin > end)
      return stop(ErrorCode::kCorrupt, "data_offsets [{}, {}] end before they begin", begin, end);
    const auto bytes = numerics::tensor_bytes(current_.info.dtype, current_.info.shape);
    if (!bytes)
      return stop(ErrorCode::kCorrupt, "shape {} overflows", shape_text(current_.info.shape));
    if (*bytes != end - begin)
      return stop(ErrorCode::kCorrupt, "{} {} takes {} bytes, data_offsets [{}, {}] hold {}",
                  dtype_info(current_.info.dtype).name, shape_text(current_.info.shape), *bytes,
                  begin, end, end - begin);
    current_.bytes = *bytes;
    current_.info.shape.shrink_to_fit();
    tensors_.push_back(std::move(current_));
    return true;
  }

  const std::string& label_;
  const uint32_t file_;
  State state_ = State::kStart;
  StoredTensor current_;
  unsigned seen_ = 0;
  uint64_t offset_count_ = 0;
  bool metadata_seen_ = false;
  std::string metadata_key_;
};

Result<uint64_t> read_header_bytes(const ByteSource& source) {
  std::byte prefix[8];
  if (source.size() < sizeof prefix)
    return fail(ErrorCode::kCorrupt, "{}: {} bytes are too few for a safetensors file",
                source.label(), source.size());
  SLUICE_TRY(source.read_at(0, prefix));
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= std::to_integer<uint64_t>(prefix[i]) << (8 * i);
  if (bytes > kSafetensorsHeaderBytesMax)
    return fail(ErrorCode::kCorrupt,
                "{}: header length {} at offset 0 exceeds the format's limit of {}; this is no "
                "safetensors file, or it is damaged",
                source.label(), bytes, kSafetensorsHeaderBytesMax);
  if (bytes > source.size() - sizeof prefix)
    return fail(ErrorCode::kCorrupt, "{}: header of {} bytes does not fit in a file of {} bytes",
                source.label(), bytes, source.size());
  return bytes;
}

// Offsets become absolute. They must tile the data section: nothing may hide between tensors.
Status place_tensors(std::vector<StoredTensor>& tensors, uint64_t data_start,
                     const ByteSource& source) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    // Empty tensors share their offset with the next one and come before it.
    return std::tie(a.offset, a.bytes, a.info.name) < std::tie(b.offset, b.bytes, b.info.name);
  });
  uint64_t expected = 0;
  const std::string* previous = nullptr;
  for (StoredTensor& tensor : tensors) {
    if (tensor.offset != expected)
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor \"{}\" begins at data offset {}, expected {} ({} after {})",
                  source.label(), tensor.info.name, tensor.offset, expected,
                  tensor.offset < expected ? "overlap" : "hole",
                  previous == nullptr ? "the header" : "\"" + *previous + "\"");
    // tensor.offset + tensor.bytes was data_offsets' end, so it does not overflow.
    expected = tensor.offset + tensor.bytes;
    previous = &tensor.info.name;
    const auto offset = checked_add(tensor.offset, data_start);
    const auto end = checked_add(expected, data_start);
    if (!offset || !end || *end > source.size())
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor \"{}\" ends at data offset {}, the file holds {} bytes of data "
                  "(truncated?)",
                  source.label(), tensor.info.name, expected, source.size() - data_start);
    tensor.offset = *offset;
  }
  if (expected != source.size() - data_start)
    return fail(ErrorCode::kCorrupt,
                "{}: the last tensor ends at data offset {}, the file holds {} bytes of data",
                source.label(), expected, source.size() - data_start);
  return {};
}

Status refuse_duplicates(const std::vector<StoredTensor>& tensors, const std::string& label) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) names.push_back(tensor.info.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return {};
  return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" appears twice in the header", label, *twice);
}

}  // namespace

Result<SafetensorsHeader> read_safetensors_header(const ByteSource& source, uint32_t file) {
  SLUICE_ASSIGN(const uint64_t header_bytes, read_header_bytes(source));
  std::string text(static_cast<size_t>(header_bytes), '\0');
  SLUICE_TRY(source.read_at(8, std::as_writable_bytes(std::span(text))));
  if (!text.starts_with('{'))
    return fail(ErrorCode::kCorrupt, "{}: the header at offset 8 does not begin with '{{'",
                source.label());

  HeaderHandler handler(source.label(), file);
  if (auto status = parse_json_events(text, source.label(), handler); !status) {
    if (handler.error_) return std::unexpected(std::move(*handler.error_));
    return std::unexpected(std::move(status).error());
  }
  SafetensorsHeader header;
  header.text_digest = digest_of(text).hex();
  std::string().swap(text);
  header.data_start = 8 + header_bytes;
  header.tensors = std::move(handler.tensors_);
  header.metadata = std::move(handler.metadata_);
  SLUICE_TRY(refuse_duplicates(header.tensors, source.label()));
  SLUICE_TRY(place_tensors(header.tensors, header.data_start, source));
  return header;
}

SafetensorsLayout layout_safetensors(std::span<const TensorInfo> tensors) {
  std::string json = R"({"__metadata__":{"format":"mlx"})";
  std::vector<uint64_t> offsets;
  offsets.reserve(tensors.size());
  uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    SLUICE_CHECK(numerics::dtype_from_safetensors(dtype_info(tensor.dtype).name).has_value());
    const auto bytes = numerics::tensor_bytes(tensor.dtype, tensor.shape);
    SLUICE_CHECK(bytes.has_value());
    offsets.push_back(end);
    const auto next = checked_add(end, *bytes);
    SLUICE_CHECK(next.has_value());
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        dump_json(tensor.name), dtype_info(tensor.dtype).name,
                        fmt::join(tensor.shape, ","), end, *next);
    end = *next;
  }
  json += '}';
  const uint64_t data_start = align_up(8 + json.size(), kDataAlignment);
  json.resize(static_cast<size_t>(data_start - 8), ' ');
  SLUICE_CHECK(json.size() <= kSafetensorsHeaderBytesMax);

  SafetensorsLayout layout;
  layout.header.reserve(static_cast<size_t>(data_start));
  for (int i = 0; i < 8; ++i)
    layout.header += static_cast<char>((uint64_t{json.size()} >> (8 * i)) & 0xff);
  layout.header += json;
  layout.offsets = std::move(offsets);
  for (uint64_t& offset : layout.offsets) offset += data_start;
  const auto file_bytes = checked_add(data_start, end);
  SLUICE_CHECK(file_bytes.has_value());
  layout.file_bytes = *file_bytes;
  return layout;
}

}  // namespace sluice::io
