// The error of every affine candidate of one row, all widths and groups at once: what analysis
// records for the parity encoder. Here the result type and the scalar reference; kernels/ is fast.
#pragma once

#include <cstddef>
#include <span>

#include "numerics/dtype.h"
#include "numerics/quant_format.h"

namespace sluice::numerics {

inline constexpr size_t kAffineCandidates = 18;

// Bits-major: kAffineBits[index / 3], kAffineGroups[index % 3].
constexpr size_t affine_candidate_index(size_t bits_index, size_t group_index) {
  return bits_index * 3 + group_index;
}
constexpr QuantFormat affine_candidate_format(size_t index) {
  return {QuantMode::kAffine, kAffineBits[index / 3], kAffineGroups[index % 3]};
}

// Of one row. squared_error = Σ(ŵ−w)², error_max ≥ max |ŵ−w|, squared_weight = Σw². Candidates
// whose group does not divide the row hold +infinity in both.
struct AffinePrices {
  double squared_error[kAffineCandidates];
  float error_max[kAffineCandidates];
  double squared_weight;
};

// row: as encode_affine_parity wants it, a positive multiple of 32 long. Scale and bias as stored
// in dtype. Codes at near-ties may differ from the encoder's, so the sums deviate from its own
// error by under 1e-3 relative over thousands of elements, by a few percent over the shortest rows:
//   code = fma(w − bias, 1/scale, magic) − magic, at most 2^bits − 1   (reciprocal, not division)
//   error = fma(−stored scale, code, w − stored bias)                  (ŵ not rounded to f32)
// with squares summed in f32 in 16 lanes (element i in lane i mod 16, fma), lanes folded as
// l + (l+8), l + (l+4), l + (l+2), l + (l+1), every kPriceChunk elements, into a double. Errors
// above 2⁶³ overflow to infinity; squares below 2⁻¹⁴⁹ vanish.
// error_max is a bound, up to f32 rounding, that needs only the ends of each group's range: the
// larger of step + (2^bits − 1)·|scale − stored scale| + |bias − stored bias|, and of the error at
// the end that is not the edge, whose code may be cut off; step = |scale|/2, or the larger distance
// of the ends from the bias where that is less.
AffinePrices price_affine_row(std::span<const float> row, DType dtype);

// Of one row under the `best` encoder, without its final comparison with parity.
struct BestPrice {
  double squared_error;
  float error_max;
};

// squared_error: the f32 errors of the search's leaders (encode_affine_best, steps 1 to 3), group
// after group into a double: within 1e-3 of the encoder's own on weights whose squares f32 holds.
// error_max: a bound, per group the larger of the leader's step (as above) and its errors at both
// ends of the group's range. A group without a valid contender counts with parity's figures, taken
// in f64 as affine_row_error does. format must fit the row.
BestPrice price_affine_best_row(std::span<const float> row, const QuantFormat& format, DType dtype);

}  // namespace sluice::numerics
