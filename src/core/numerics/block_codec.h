// Stored elements to f32: the scalar reference for every supported DType, GGUF blocks included,
// and the exact moves of those block types that are affine already.
#pragma once

#include <cstddef>
#include <span>

#include "numerics/affine.h"
#include "numerics/dtype.h"
#include "numerics/fp.h"

namespace sluice::numerics {

// in: whole blocks, little endian, any alignment; out.size() elements. dtype must be a float type.
// GGUF blocks decode to the same bits as ggml's own to_float.
void decode_elements(DType dtype, std::span<const std::byte> in, std::span<float> out);

// Rounds to kF32, kF16 or kBF16, to nearest even.
void encode_elements(DType dtype, std::span<const float> in, std::span<std::byte> out);

// What files keep in another form than loaders expect.
enum class ValueStep : uint8_t {
  kNone,
  kAddOne,       // norms that are stored less one
  kSubtractOne,  // norms to which the one has been added
  kLogOfMinus,   // ln(−x): decay rates that are stored as −e^x
};

// values: as decoded from dtype. Each step as arithmetic in that type has it: rounded to nearest
// even for kF16 and kBF16, f32 for all others.
void apply(ValueStep step, DType dtype, std::span<float> values);

// The smallest affine format a block type maps onto without loss (Q4_0, Q4_1 → 4/32; Q5_0, Q5_1 →
// 5/32; Q8_0, IQ4_NL → 8/32; TQ1_0, TQ2_0, Q1_0 → 2/128; Q2_0 → 2/64), in an f16 model; nothing for
// all other types.
std::optional<QuantFormat> lossless_affine(DType dtype);

// Moves one row of blocks. False when some bias (−d, −8d, −16d, −128d) does not fit in f16, or a
// scale is not finite; out is then unspecified.
bool move_lossless(DType dtype, std::span<const std::byte> in, const AffineRow& out);

// The fp mode a block type maps onto without loss: MXFP4 → mxfp4, NVFP4 → nvfp4; in models of any
// type. Both lay out codes otherwise and store halved scales of doubled values.
std::optional<QuantFormat> lossless_fp(DType dtype);

// Moves one row of blocks. False for a scale that MLX reads otherwise (E8M0's 255, E4M3's NaN and
// sign bit); out is then unspecified. Codes of −0, which ggml decodes to 0, become 0.
bool move_lossless_fp(DType dtype, std::span<const std::byte> in, const FpRow& out);

}  // namespace sluice::numerics
