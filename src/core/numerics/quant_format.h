// QuantFormat: how one output module is stored in an MLX-format file, and the exact bytes that
// takes. Encoder: by which rule the codes are chosen; the loader cannot tell encoders apart.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "numerics/dtype.h"

namespace sluice::numerics {

enum class QuantMode : uint8_t {
  kFloat,   // not quantized: the elements in the model's dtype (or their own, see Recipe)
  kAffine,  // w ≈ scale·code + bias per group; docs/formats.md#affine
  // w ≈ scale·code with codes that are small floats and scales of one byte;
  // docs/formats.md#fp-modes
  kMxfp4,  // groups of 32; codes E2M1, scales E8M0
  kMxfp8,  // groups of 32; codes E4M3, scales E8M0
  kNvfp4,  // groups of 16; codes E2M1, scales E4M3
};

// Value. Ordered and hashable by its fields. bits and group_size are 0 for kFloat.
struct QuantFormat {
  QuantMode mode = QuantMode::kFloat;
  uint8_t bits = 0;
  uint16_t group_size = 0;
  auto operator<=>(const QuantFormat&) const = default;
};

enum class Encoder : uint8_t {
  kCast,      // kFloat: round to the model's dtype
  kParity,    // bit-identical to MLX's own quantizer
  kBest,      // codes, scale and bias searched against the stored scale and bias
  kLossless,  // the source's own codes and scales, moved
  kFeedback,  // affine: columns make good the errors of those before, by recorded inputs
};

// Each fp mode has one width and one group.
inline constexpr QuantFormat kFpFormats[] = {
    {QuantMode::kMxfp4, 4, 32}, {QuantMode::kMxfp8, 8, 32}, {QuantMode::kNvfp4, 4, 16}};
inline constexpr size_t kFpCandidates = 3;

inline constexpr uint8_t kAffineBits[] = {2, 3, 4, 5, 6, 8};
inline constexpr uint16_t kAffineGroups[] = {32, 64, 128};

// mxfp4, mxfp8 or nvfp4, with its own width and group.
bool is_fp(const QuantFormat& format);

std::string_view quant_mode_name(QuantMode mode);  // "float", "affine", "mxfp4", …
std::string_view encoder_name(Encoder encoder);    // "cast", "parity", "best", "lossless", …
std::optional<Encoder> encoder_from_name(std::string_view name);

// "4/64" for affine, "16-bit" for float, "mxfp4"; for tables and messages.
std::string format_text(const QuantFormat& format);
// The inverse of format_text; also accepts "float".
Result<QuantFormat> parse_format(std::string_view text);

// At least two axes and a last axis divisible by the group.
bool can_encode(const QuantFormat& format, std::span<const uint64_t> shape);

// Bytes of the tensors a module becomes; scales and biases are 0 for kFloat, biases for fp modes.
// dtype: the model's float type. Requires can_encode() and a shape whose element count fits.
struct EncodedBytes {
  uint64_t weight = 0, scales = 0, biases = 0;
  uint64_t total() const { return weight + scales + biases; }
};
EncodedBytes encoded_bytes(const QuantFormat& format, std::span<const uint64_t> shape, DType dtype);

}  // namespace sluice::numerics
