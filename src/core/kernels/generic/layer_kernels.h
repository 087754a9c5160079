// The layer maths, written once over sixteen lanes. A file per instruction set defines SLUICE_ISA
// and includes its simd.h, then this; no name leaves that file except its RawLayerOps.
#pragma once

#include "kernels/generic/attention_kernels.h"
#include "kernels/generic/kv_kernels.h"
#include "kernels/generic/layer_math.h"
#include "kernels/generic/recurrent_kernels.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// ---- norms ----

void rms_norm(const float* x, const float* weight, size_t count, float epsilon, float* out) {
  const float mean = dot(x, x, count) / static_cast<float>(count);
  const F inverse = splat(1.0f / __builtin_sqrtf(mean + epsilon));
  if (weight == nullptr)
    for_lanes(count, out, [&](F a) { return a * inverse; }, x);
  else
    for_lanes(count, out, [&](F a, F w) { return a * inverse * w; }, x, weight);
}

void layer_norm(const float* x, const float* weight, const float* bias, size_t count, float epsilon,
                float* out) {
  const float size = static_cast<float>(count);
  const float mean = sum_lanes(count, [](F sum, F a) { return sum + a; }, x) / size;
  const F center = splat(mean);
  for_lanes(count, out, [&](F a) { return a - center; }, x);
  const F inverse = splat(1.0f / __builtin_sqrtf(dot(out, out, count) / size + epsilon));
  for_lanes(count, out, [&](F a) { return a * inverse; }, out);
  if (weight != nullptr) for_lanes(count, out, [](F a, F w) { return a * w; }, out, weight);
  if (bias != nullptr) for_lanes(count, out, [](F a, F b) { return a + b; }, out, bias);
}

// ---- elements one by one ----

void add(float* x, const float* y, size_t count) {
  for_lanes(count, x, [](F a, F b) { return a + b; }, x, y);
}
void scale_add(float* x, float a, const float* y, size_t count) {
  const F factor = splat(a);
  for_lanes(count, x, [&](F p, F q) { return fma(factor, q, p); }, x, y);
}
void exp_all(const float* x, size_t count, float* out) {
  for_lanes(count, out, [](F a) { return exp_lanes(a); }, x);
}
void sigmoid(const float* x, size_t count, float* out) {
  for_lanes(count, out, [](F a) { return sigmoid_lanes(a); }, x);
}
void silu_mul(const float* gate, const float* up, size_t count, float* out) {
  for_lanes(count, out, [](F g, F u) { return g * sigmoid_lanes(g) * u; }, gate, up);
}
void sigmoid_mul(const float* gate, const float* x, size_t count, float* out) {
  for_lanes(count, out, [](F g, F a) { return sigmoid_lanes(g) * a; }, gate, x);
}
void gelu_mul(const float* gate, const float* up, size_t count, GeluForm form, float* out) {
  if (form == GeluForm::kTanh)
    for_lanes(count, out, [](F g, F u) { return gelu_tanh_lanes(g) * u; }, gate, up);
  else
    for_lanes(count, out, [](F g, F u) { return gelu_erf_lanes(g) * u; }, gate, up);
}
void swiglu_clamped(const float* gate, const float* up, size_t count, float alpha, float limit,
                    float* out) {
  const F top = splat(limit), bottom = splat(-limit), slope = splat(alpha), one = splat(1);
  for_lanes(
      count, out,
      [&](F g, F u) {
        g = min_(top, g);
        u = max_(bottom, min_(top, u));
        return (u + one) * (g * sigmoid_lanes(slope * g));
      },
      gate, up);
}
void softcap(float* x, size_t count, float cap) {
  const F top = splat(cap);
  for_lanes(count, x, [&](F a) { return top * tanh_lanes(a / top); }, x);
}

// ---- over all elements ----

float largest(const float* x, size_t count) {
  F top = splat(-kInf);
  size_t i = 0;
  for (; i + kWide <= count; i += kWide) top = max_(load(x + i), top);
  if (i < count) top = max_(load_some(x + i, count - i, -kInf), top);
  return fold_max(top);
}

void softmax(float* x, size_t count) {
  const F top = splat(largest(x, count));
  for_lanes(count, x, [&](F a) { return exp_lanes(a - top); }, x);
  const F sum = splat(sum_lanes(count, [](F s, F a) { return s + a; }, x));
  for_lanes(count, x, [&](F a) { return a / sum; }, x);
}

size_t argmax(const float* x, size_t count) {
  const float top = largest(x, count);
  for (size_t i = 0; i < count; ++i)
    if (x[i] == top) return i;
  return 0;
}

// ---- positions ----

void rope_half(float* x, size_t pairs, const float* cos, const float* sin) {
  float* y = x + pairs;
  size_t j = 0;
  for (; j + kWide <= pairs; j += kWide) {
    const F a = load(x + j), b = load(y + j), c = load(cos + j), s = load(sin + j);
    store(x + j, a * c - b * s);
    store(y + j, b * c + a * s);
  }
  for (; j < pairs; ++j) {
    const float a = x[j], b = y[j];
    x[j] = a * cos[j] - b * sin[j];
    y[j] = b * cos[j] + a * sin[j];
  }
}

void rope_interleaved(float* x, size_t pairs, const float* cos, const float* sin) {
  for (size_t j = 0; j < pairs; ++j) {
    const float a = x[2 * j], b = x[2 * j + 1];
    x[2 * j] = a * cos[j] - b * sin[j];
    x[2 * j + 1] = b * cos[j] + a * sin[j];
  }
}

void rope(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos,
          const float* sin, RopeStyle style) {
  for (size_t head = 0; head < heads; ++head) {
    if (style == RopeStyle::kHalf)
      rope_half(x + head * head_dim, rotary_dim / 2, cos, sin);
    else
      rope_interleaved(x + head * head_dim, rotary_dim / 2, cos, sin);
  }
}

void hadamard(float* x, size_t count) {
  for (size_t half = 1; half < count; half *= 2)
    for (size_t start = 0; start < count; start += 2 * half)
      for (size_t i = start; i < start + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(count));
  for (size_t i = 0; i < count; ++i) x[i] *= scale;
}

constexpr RawLayerOps kLayerOps = {.rms_norm = rms_norm,
                                   .layer_norm = layer_norm,
                                   .dot = dot,
                                   .add = add,
                                   .scale_add = scale_add,
                                   .exp = exp_all,
                                   .sigmoid = sigmoid,
                                   .silu_mul = silu_mul,
                                   .sigmoid_mul = sigmoid_mul,
                                   .gelu_mul = gelu_mul,
                                   .swiglu_clamped = swiglu_clamped,
                                   .softcap = softcap,
                                   .softmax = softmax,
                                   .argmax = argmax,
                                   .rope = rope,
                                   .hadamard = hadamard,
                                   .encode_kv = encode_kv,
                                   .decode_kv = decode_kv,
                                   .attend_scratch_floats = attend_scratch_floats,
                                   .attend = attend,
                                   .l2_norm = l2_norm,
                                   .delta_decay = delta_decay,
                                   .softplus = softplus,
                                   .step_decay = step_decay,
                                   .convolve = convolve,
                                   .delta_rule = delta_rule,
                                   .state_space = state_space};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
