// The parameters MLX chooses for one group: shared by the scalar encoder and the scalar pricing.
// Internal to numerics.
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

// The value that comes back after storing in dtype (kF32, kF16, kBF16).
float round_to_dtype(float value, DType dtype);

}  // namespace sluice::numerics
