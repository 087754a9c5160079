// MLX's affine format: the scalar reference for encoding, packing and decoding one row. Obvious on
// purpose; kernels/ holds the fast versions, which must give the same bits.
// Layout and rules: docs/formats.md#affine. Source: mlx 0.32, checked against the package itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "numerics/dtype.h"
#include "numerics/error_stats.h"
#include "numerics/quant_format.h"

namespace sluice::numerics {

// MLX's backends round differently at exact ties; errors are equal.
enum class ParityRule : uint8_t { kCpu, kGpu };

// One encoded row. Views into the caller's memory:
//   weight  columns·bits/8 bytes, the little-endian bit stream of codes
//   scales, biases  columns/group_size elements of the model dtype (f32, f16 or bf16), as bytes
struct AffineRow {
  std::span<std::byte> weight, scales, biases;
};
struct ConstAffineRow {
  std::span<const std::byte> weight, scales, biases;
};

// row: columns finite values, columns % group_size == 0, group range below f32 overflow (the caller
// refuses others: see find_unencodable). dtype: kF32, kF16 or kBF16. MLX sees a tensor already cast
// to dtype, so its bytes result from rows rounded to dtype first.
void encode_affine_parity(std::span<const float> row, const QuantFormat& format, DType dtype,
                          ParityRule rule, const AffineRow& out);

// Codes, scale and bias searched against the stored scale and bias. Per group:
//   1. Contender: parity's stored scale and bias. Then, for each start of kBestStarts, bias =
//      T(inner·(1 − i/256)) and scale = T((edge·(1 − e/256) − bias)/(2^bits − 1)), where edge is
//      the end of the group's range that parity takes and inner the other one.
//   2. A contender's codes are clamp(fma(w − bias, 1/scale, magic) − magic); its error is summed in
//      f32 from left to right. The smallest error leads, the first of equals.
//   3. Twice: least squares of w on the leader's codes gives scale, rounded to T, and the bias that
//      fits this rounded scale, rounded to T: one more contender.
//   4. Leader and parity are compared in f64 on decoded values; the leader must win by kBestMargin.
// Hence never a larger squared error in any group than encode_affine_parity under the cpu rule.
// Scales and biases not finite in dtype are no contenders.
void encode_affine_best(std::span<const float> row, const QuantFormat& format, DType dtype,
                        const AffineRow& out);

// out[i] = scale·code + bias in f32 (two roundings: product, then sum).
void decode_affine(const ConstAffineRow& in, const QuantFormat& format, DType dtype,
                   std::span<float> out);

// What the encoded row decodes to, held against its source. Summed in f64, in each group from left
// to right, then the groups from left to right: every implementation gives the same bits.
ErrorStats affine_row_error(std::span<const float> row, const ConstAffineRow& in,
                            const QuantFormat& format, DType dtype);

// Codes of one row as a little-endian bit stream: code i in bits [i·bits, (i+1)·bits).
//   codes.size() % 8 == 0, each code < 2^bits; packed: codes.size()·bits/8 bytes
void pack_codes(std::span<const uint8_t> codes, unsigned bits, std::span<std::byte> out);
void unpack_codes(std::span<const std::byte> packed, unsigned bits, std::span<uint8_t> codes);

// Index of the first value that is NaN or infinite, or that begins a group of 128 whose range
// overflows f32; row.size() when there is none.
size_t find_unencodable(std::span<const float> row);

}  // namespace sluice::numerics
