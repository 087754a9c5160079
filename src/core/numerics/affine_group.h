// What encoding and pricing share about one group: the parameters of MLX's rule, and what the
// search of `best` finds. Scalar; internal to numerics.
#pragma once

#include <span>

#include "numerics/affine.h"

namespace sluice::numerics {

// scale, bias: as computed in f32, before they are stored. edge and inner are the ends of the
// range, edge the one of larger magnitude (the maximum on a tie).
struct AffineGroup {
  float edge, inner, scale, bias;
};
AffineGroup parity_group(std::span<const float> group, unsigned bits, ParityRule rule);

// The leader of the `best` search, not yet held against parity; error is infinite when no contender
// is valid. Errors at w are those of fma(−scale, code, w − bias).
struct SearchedGroup {
  float scale, bias, error;
};
SearchedGroup search_group(std::span<const float> group, const QuantFormat& format, DType dtype);
float searched_error_at(float w, const SearchedGroup& found, unsigned bits);

// parity's error of one group, as affine_row_error has it; error_max is raised.
double parity_group_error(std::span<const float> group, unsigned bits, DType dtype,
                          double* error_max);

// The value that comes back after storing in dtype (kF32, kF16, kBF16).
float round_to_dtype(float value, DType dtype);

}  // namespace sluice::numerics
