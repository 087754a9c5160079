// MLX's fp modes mxfp4, mxfp8 and nvfp4: the scalar reference for encoding, packing and decoding
// one row. Obvious on purpose; kernels/ holds the fast versions, which must give the same bits.
// Layout and rules: docs/formats.md#fp-modes. Source: mlx 0.32 on CPU, checked against the package.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "numerics/affine.h"
#include "numerics/dtype.h"
#include "numerics/error_stats.h"
#include "numerics/quant_format.h"

namespace sluice::numerics {

// One encoded row. Views into the caller's memory:
//   weight  columns·bits/8 bytes of codes, low nibble first at four bits
//   scales  columns/group_size bytes: E8M0, in nvfp4 E4M3
struct FpRow {
  std::span<std::byte> weight, scales;
};
struct ConstFpRow {
  std::span<const std::byte> weight, scales;
};

// row: columns finite values representable in dtype (kF32, kF16 or kBF16), columns % group_size ==
// 0. MLX computes in dtype, so its bytes depend on it although they do not show it:
//   s = T(max |w| / m), m = 6 or 448 for E4M3 codes
//   E8M0: scale the smallest power of two that is no less than s, 1 for s = 0; byte = 127 +
//   exponent E4M3: byte = s to the nearest, at most 448; scale its value E2M1: the code of least
//   T(|T(w/scale) − value|), the first of equals: ties go to the smaller
//         magnitude, nothing becomes −0, and what is far outside or divided by zero becomes 0
//   E4M3: T(w/scale) to the nearest even, at most ±448, signs of zeros kept
// Groups for which find_unscalable says so wrap around as they do in MLX.
void encode_fp_parity(std::span<const float> row, const QuantFormat& format, DType dtype,
                      const FpRow& out);

// First element of the first group whose E8M0 byte would be −1 or less (s at most
// 2^−128), which MLX wraps around to an enormous scale; row.size() when there is none.
size_t find_unscalable(std::span<const float> row, const QuantFormat& format, DType dtype);

// The scale byte searched, codes to the nearest. Per group:
//   1. Parity's byte b (0 where it wraps) and its neighbours b + first … b + last (fp_constants.h)
//      between 0 and the largest contend, b first, then in rising order. A scale of 0 is none.
//   2. A contender's values are those nearest to |w|·(1/scale) in f32, ties to even; its error
//      fma(−scale, value, |w|), squared and summed by fma in f32 from left to right. The smallest
//      leads, the first of equals.
//   3. Leader and parity are compared in f64 on decoded values; the leader must win by kBestMargin.
// Never a larger squared error in any group than under encode_fp_parity.
void encode_fp_best(std::span<const float> row, const QuantFormat& format, DType dtype,
                    const FpRow& out);

// out[i] = value·scale in f32, which is exact but for scales near the ends of f32. As in MLX, code
// 0x7f of E4M3 is NaN and E8M0's 0xff infinite; encoders write neither.
void decode_fp(const ConstFpRow& in, const QuantFormat& format, std::span<float> out);

// The format that holds every value of mxfp4 exactly: code 12 + twice the signed magnitude.
inline constexpr QuantFormat kMxfp4AsAffine = {QuantMode::kAffine, 5, 32};
// A row of mxfp4 as such: scale half of the group's, bias −12 times that, in dtype. False where
// scale is no normal number there or a product is not finite; out is then unspecified.
bool mxfp4_to_affine(const ConstFpRow& in, DType dtype, const AffineRow& out);

// What the encoded row decodes to, held against its source. Summed in f64, in each group from left
// to right, then the groups from left to right.
ErrorStats fp_row_error(std::span<const float> row, const ConstFpRow& in,
                        const QuantFormat& format);

// The E8M0 exponent of encode_fp_parity for a finite s ≥ 0.
int parity_exponent(float s);

// E4M3 without infinities (the "FN" kind that safetensors means): 0x7f and 0xff are NaN.
float e4m3_value(uint8_t code);
// To nearest even, at most ±448; signs of zeros are kept.
uint8_t nearest_e4m3(float value);

// ---- pricing ----

// Of one row, in the order of kFpFormats. Candidates whose group does not divide the row hold
// +infinity, as do those with a group that MLX's encoder treats specially: unscalable, or in nvfp4
// with a maximum beyond 448·2^20.
struct FpPrices {
  double squared_error[kFpCandidates];
  float error_max[kFpCandidates];
};

// Parity's errors, but for near-ties in nvfp4, where w·(1/scale) stands for T(w/scale), and for
// squares summed in f32 as price_affine_row sums them. row: a positive multiple of 16 long.
FpPrices price_fp_row(std::span<const float> row, DType dtype);

}  // namespace sluice::numerics
