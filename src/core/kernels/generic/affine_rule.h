// The parameters that MLX's rule gives sixteen groups at once: shared by encoders and pricing.
#pragma once

#include "kernels/generic/tiles.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr float kFloatMax = 3.40282346638528859812e+38f;
constexpr float kScaleMin = 1e-7f;  // MLX's eps

inline float top_code(int bits) { return static_cast<float>((1 << bits) - 1); }

struct Params {
  F edge, inner, scale, bias;  // scale and bias as computed in f32
};

inline F round_by(F x, bool gpu_rule) {
  const F even = round_even(x);
  if (!gpu_rule) return even;
  // Half away from zero differs from half to even only where x lies half a step outside.
  const F rest = x - even;
  const M up = both(gt(x, splat(0)), eq(rest, splat(0.5f)));
  const M down = both(lt(x, splat(0)), eq(rest, splat(-0.5f)));
  return select(up, even + splat(1), select(down, even - splat(1), even));
}

inline Params parity_params(F low, F high, F top, bool gpu_rule) {
  if (gpu_rule) high = max_(high, splat(0));
  const M low_edge = gt(abs_(low), abs_(high));
  Params p;
  p.edge = select(low_edge, low, high);
  p.inner = select(low_edge, high, low);
  F scale = max_((high - low) / top, splat(kScaleMin));
  scale = select(low_edge, scale, neg(scale));
  const F steps = round_by(p.edge / scale, gpu_rule);
  const M shifted = gt(abs_(steps), splat(0));
  p.scale = select(shifted, p.edge / steps, scale);
  p.bias = select(shifted, p.edge, splat(0));
  return p;
}

inline F parity_code(F w, const Params& p, F top, bool gpu_rule) {
  return min_(max_(round_by((w - p.bias) / p.scale, gpu_rule), splat(0)), top);
}

struct Range {
  F low, high;
};

inline Range tile_range(const Tile& tile) {
  Range r{load(tile.w), load(tile.w)};
  for (int j = 1; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    r.low = min_(w, r.low);
    r.high = max_(w, r.high);
  }
  return r;
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
