// MLX's affine format: the scalar reference for encoding, packing and decoding one row. Obvious on
// purpose; kernels/ holds the fast versions, which must give the same bits.
// Layout and rules: docs/formats.md#affine. Source: mlx 0.32, checked against the package itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "numerics/dtype.h"
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
// refuses others: see find_unencodable). dtype: kF32, kF16 or kBF16.
void encode_affine_parity(std::span<const float> row, const QuantFormat& format, DType dtype,
                          ParityRule rule, const AffineRow& out);

// Never a larger squared error in any group than encode_affine_parity under the cpu rule.
void encode_affine_best(std::span<const float> row, const QuantFormat& format, DType dtype,
                        const AffineRow& out);

// out[i] = scale·code + bias in f32 (two roundings: product, then sum).
void decode_affine(const ConstAffineRow& in, const QuantFormat& format, DType dtype,
                   std::span<float> out);

void pack_codes(std::span<const uint8_t> codes, unsigned bits, std::span<std::byte> out);
void unpack_codes(std::span<const std::byte> packed, unsigned bits, std::span<uint8_t> codes);

// Index of the first value that is NaN or infinite, or that begins a group of 128 whose range
// overflows f32; row.size() when there is none.
size_t find_unencodable(std::span<const float> row);

}  // namespace sluice::numerics
