#include "numerics/quant_format.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace sluice::numerics {
namespace {

// The whole text as a number; nothing otherwise.
std::optional<unsigned> whole_number(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

}  // namespace

bool is_fp(const QuantFormat& format) { return std::ranges::count(kFpFormats, format) == 1; }

std::string_view quant_mode_name(QuantMode mode) {
  switch (mode) {
    case QuantMode::kFloat: return "float";
    case QuantMode::kAffine: return "affine";
    case QuantMode::kMxfp4: return "mxfp4";
    case QuantMode::kMxfp8: return "mxfp8";
    case QuantMode::kNvfp4: return "nvfp4";
  }
  return "unknown";
}

std::string_view encoder_name(Encoder encoder) {
  switch (encoder) {
    case Encoder::kCast: return "cast";
    case Encoder::kParity: return "parity";
    case Encoder::kBest: return "best";
    case Encoder::kLossless: return "lossless";
    case Encoder::kFeedback: return "feedback";
  }
  return "unknown";
}

std::optional<Encoder> encoder_from_name(std::string_view name) {
  for (const Encoder encoder :
       {Encoder::kCast, Encoder::kParity, Encoder::kBest, Encoder::kLossless, Encoder::kFeedback})
    if (name == encoder_name(encoder)) return encoder;
  return std::nullopt;
}

std::string format_text(const QuantFormat& format) {
  if (format.mode == QuantMode::kFloat) return "16-bit";
  if (format.mode != QuantMode::kAffine) return std::string(quant_mode_name(format.mode));
  return fmt::format("{}/{}", format.bits, format.group_size);
}

Result<QuantFormat> parse_format(std::string_view text) {
  if (text == "16-bit" || text == "float") return QuantFormat{};
  for (const QuantFormat& format : kFpFormats)
    if (text == quant_mode_name(format.mode)) return format;
  const size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    const auto bits = whole_number(text.substr(0, slash));
    const auto group = whole_number(text.substr(slash + 1));
    if (bits && group && std::ranges::count(kAffineBits, *bits) == 1 &&
        std::ranges::count(kAffineGroups, *group) == 1)
      return QuantFormat{QuantMode::kAffine, static_cast<uint8_t>(*bits),
                         static_cast<uint16_t>(*group)};
  }
  return fail(
      ErrorCode::kInvalidArgument,
      "unknown format \"{}\"; known are 16-bit, mxfp4, mxfp8, nvfp4 and BITS/GROUP with bits "
      "2, 3, 4, 5, 6 or 8 and group 32, 64 or 128, such as 4/64",
      text);
}

bool can_encode(const QuantFormat& format, std::span<const uint64_t> shape) {
  if (format.mode == QuantMode::kFloat) return true;
  return shape.size() >= 2 && shape.back() % format.group_size == 0;
}

EncodedBytes encoded_bytes(const QuantFormat& format, std::span<const uint64_t> shape,
                           DType dtype) {
  SLUICE_CHECK(can_encode(format, shape));
  const auto elements = element_count(shape);
  SLUICE_CHECK(elements.has_value());
  const uint64_t element_bytes = dtype_info(dtype).block_bytes;
  if (format.mode == QuantMode::kFloat) return {.weight = *elements * element_bytes};
  // The group is a multiple of 8, so both divisions are exact.
  const uint64_t codes = *elements / 8 * format.bits, groups = *elements / format.group_size;
  if (is_fp(format)) return {codes, groups, 0};
  return {codes, groups * element_bytes, groups * element_bytes};
}

}  // namespace sluice::numerics
