// The affine encoder for weights whose columns count differently: a column's squared error is
// weighted by how much of the module's input comes through it. Same layout as numerics/affine.h,
// same loaders. Scalar; what fast kernels would have to reproduce.
#pragma once

#include <span>

#include "numerics/affine.h"

namespace sluice::numerics {

// As encode_affine_best, for the least Σ importance[i]·(ŵ[i] − w[i])² in each group; sums and
// refits in f64. importance: a value for each column, finite and ≥ 0. Never a larger weighted
// error in any group than encode_affine_parity under the cpu rule.
void encode_affine_weighted(std::span<const float> row, std::span<const float> importance,
                            const QuantFormat& format, DType dtype, const AffineRow& out);

// The stored scale and bias that this search finds for one group.
struct StoredGroup {
  float scale, bias;
};
StoredGroup weighted_group(std::span<const float> group, std::span<const float> importance,
                           const QuantFormat& format, DType dtype);

// The code that decodes closest to w.
uint8_t nearest_code(float w, const StoredGroup& stored, unsigned bits);

}  // namespace sluice::numerics
