// Exponentials, sums and ragged ends over sixteen lanes: what the layer maths is made of. Included
// after an instruction set's simd.h, with SLUICE_ISA defined; no name leaves the including file.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/raw_layer_ops.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kWide = 16;
constexpr float kInf = __builtin_inff();

inline size_t least_of(size_t a, size_t b) { return a < b ? a : b; }
inline size_t most_of(size_t a, size_t b) { return a > b ? a : b; }

// The first count < 16 elements, the other lanes fill.
inline F load_some(const float* p, size_t count, float fill = 0) {
  float values[kWide];
  for (float& value : values) value = fill;
  memcpy(values, p, count * 4);
  return load(values);
}
inline void store_some(float* p, F x, size_t count) {
  float values[kWide];
  store(values, x);
  memcpy(p, values, count * 4);
}

// out[i] = function(in[i]...) over all elements, the last ones through a padded copy.
template <class Function, class... In>
inline void for_lanes(size_t count, float* out, Function function, const In*... in) {
  size_t i = 0;
  for (; i + kWide <= count; i += kWide) store(out + i, function(load(in + i)...));
  if (i < count) store_some(out + i, function(load_some(in + i, count - i)...), count - i);
}

// Σ term(element...) in four vectors, taken in turn; absent lanes count as term(0...) = 0.
template <class Step, class... In>
inline float sum_lanes(size_t count, Step step, const In*... in) {
  F sum[4] = {splat(0), splat(0), splat(0), splat(0)};
  size_t i = 0;
  for (; i + 4 * kWide <= count; i += 4 * kWide)
    for (size_t part = 0; part < 4; ++part)
      sum[part] = step(sum[part], load(in + i + part * kWide)...);
  for (size_t part = 0; i < count; i += kWide, ++part) {
    if (i + kWide <= count)
      sum[part] = step(sum[part], load(in + i)...);
    else
      sum[part] = step(sum[part], load_some(in + i, count - i)...);
  }
  return fold_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline float dot(const float* x, const float* y, size_t count) {
  return sum_lanes(count, [](F sum, F a, F b) { return fma(a, b, sum); }, x, y);
}

// e^x = 2^k · e^r with k whole and |r| ≤ ln 2 / 2; polynomial and split of ln 2 as in Moshier's
// Cephes (expf). 2^k is made of a float's upper twelve bits, in two steps so that k = 128 works.
inline F exp_lanes(F x) {
  constexpr float kLow = -86.6f, kHigh = 89.0f;
  const F kept = min_(splat(kHigh), max_(splat(kLow), x));  // in this order NaN stays
  const F whole = round_even(kept * splat(1.44269504088896341f));
  const F k = min_(max_(whole, splat(-125)), splat(128));  // in this order NaN goes
  const F r = fnma(k, splat(-2.12194440e-4f), fnma(k, splat(0.693359375f), kept));
  F p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1);
  const F power = from_high_12(fma(k, splat(8), splat((127 - 1) * 8)));  // 2^(k − 1)
  return select(lt(x, splat(kLow)), splat(0), (p + p) * power);
}

inline F sigmoid_lanes(F z) { return splat(1) / (splat(1) + exp_lanes(neg(z))); }

// 1 − 2 / (e^2z + 1): absolute accuracy, which is what bounded scores need.
inline F tanh_lanes(F z) { return splat(1) - splat(2) / (exp_lanes(z + z) + splat(1)); }

// z · sigmoid(2y) equals z/2 · (1 + tanh y) and loses nothing for negative z.
inline F gelu_tanh_lanes(F z) {
  const F y = z * fma(z * z, splat(0.0356774081f), splat(0.797884561f));
  return z * sigmoid_lanes(y + y);
}

// z/2 · erfc(−z/√2); erfc by the Chebyshev fit of Numerical Recipes (erfcc), relative error 1.2e-7.
inline F gelu_erf_lanes(F z) {
  constexpr float kFit[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                            -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const F x = abs_(z) * splat(0.707106781f);
  const F t = splat(1) / fma(x, splat(0.5f), splat(1));
  F p = splat(kFit[0]);
  for (int i = 1; i < 10; ++i) p = fma(p, t, splat(kFit[i]));
  const F tail = t * exp_lanes(fnma(x, x, p));  // erfc(|z| / √2)
  return splat(0.5f) * z * select(lt(z, splat(0)), tail, splat(2) - tail);
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
