// Rows of the KV cache in and out of their formats (layer_types.h). A row's ragged end decodes to
// zeros up to the next multiple of sixteen.
#pragma once

#include "kernels/generic/layer_math.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kKvGroup = 32;
constexpr float kHalfMax = 65504;

// ---- f16 scales ----

// Finite halves; the product with 2¹¹² puts the exponent right, subnormal ones included.
inline float load_scale(const uint8_t* in) {
  uint16_t half;
  memcpy(&half, in, 2);
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  float scale;
  memcpy(&scale, &magnitude, 4);
  return (half & 0x8000u) != 0 ? scale * -0x1p112f : scale * 0x1p112f;
}

// Rounds and stores; returns what load_scale will. Never −0, whose sign would depend on the order
// in which a group's extremes are found.
inline F store_scale(uint8_t* out, F scale) {
  scale = round_f16(max_(min_(scale, splat(kHalfMax)), splat(-kHalfMax)));
  scale = select(eq(scale, splat(0)), splat(0), scale);
  uint8_t halves[2 * kWide];
  store_f16(halves, scale);
  memcpy(out, halves, 2);
  return scale;
}

inline F inverse_or_zero(F scale) {
  return select(eq(scale, splat(0)), splat(0), splat(1) / scale);
}

// Code of x, moved up so that the lowest is 0.
inline F kv_code(F x, F inverse, float low, float high) {
  const F code = round_even(x * inverse);
  return max_(min_(code, splat(high)), splat(low)) - splat(low);
}

// ---- groups of 32 ----

inline void encode_q8_group(F a, F b, uint8_t* out) {
  const float top = fold_max(max_abs(max_abs(splat(0), a), b));
  const F inverse = inverse_or_zero(store_scale(out, splat(top) / splat(127)));
  store_codes(out + 2, kv_code(a, inverse, -128, 127));
  store_codes(out + 2 + kWide, kv_code(b, inverse, -128, 127));
}

// The scale's sign makes the element of the largest magnitude code −8, which the positive side
// lacks (as GGML's q4_0).
inline void encode_q4_group(F a, F b, uint8_t* out) {
  const float high = fold_max(max_(a, max_(b, splat(0))));
  const float low = fold_min(min_(a, min_(b, splat(0))));
  const F scale = store_scale(out, splat(high > -low ? high : low) / splat(-8));
  const F inverse = inverse_or_zero(scale);
  uint8_t codes[kKvGroup];
  store_codes(codes, kv_code(a, inverse, -8, 7));
  store_codes(codes + kWide, kv_code(b, inverse, -8, 7));
  for (size_t j = 0; j < kWide; ++j)
    out[2 + j] = static_cast<uint8_t>(codes[j] | (codes[j + kWide] << 4));
}

inline void decode_q8_group(const uint8_t* in, F* a, F* b) {
  const F scale = splat(load_scale(in)), zero = splat(128);
  *a = scale * (load_codes(in + 2) - zero);
  *b = scale * (load_codes(in + 2 + kWide) - zero);
}

// A byte is low + 16 · high: what is left of byte / 16 after taking 15/32 lies within half of high.
inline void decode_q4_group(const uint8_t* in, F* a, F* b) {
  const F scale = splat(load_scale(in)), zero = splat(8);
  const F both_codes = load_codes(in + 2);
  const F high = round_even(fma(both_codes, splat(0.0625f), splat(-0.46875f)));
  const F low = fnma(high, splat(16), both_codes);
  *a = scale * (low - zero);
  *b = scale * (high - zero);
}

// ---- rows ----

inline F load_up_to_16(const float* in, size_t left) {
  return left >= kWide ? load(in) : load_some(in, left);
}

void encode_f16_row(const float* in, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; i += kWide) {
    const F x = min_(load_up_to_16(in + i, count - i), splat(kHalfMax));
    uint8_t halves[2 * kWide];
    store_f16(halves, round_f16(max_(x, splat(-kHalfMax))));
    memcpy(out + 2 * i, halves, 2 * least_of(kWide, count - i));
  }
}

void encode_kv(KvType type, const float* in, size_t count, uint8_t* out) {
  if (type == KvType::kF32) {
    memcpy(out, in, count * 4);
    return;
  }
  if (type == KvType::kF16) {
    encode_f16_row(in, count, out);
    return;
  }
  for (size_t i = 0; i < count; i += kKvGroup) {
    const size_t left = count - i;
    const F a = load_up_to_16(in + i, left);
    const F b = left > kWide ? load_up_to_16(in + i + kWide, left - kWide) : splat(0);
    if (type == KvType::kQ8) {
      encode_q8_group(a, b, out);
      out += 2 + kKvGroup;
    } else {
      encode_q4_group(a, b, out);
      out += 2 + kKvGroup / 2;
    }
  }
}

inline F load_floats(const uint8_t* in, size_t left) {
  float values[kWide];
  if (left >= kWide) {
    memcpy(values, in, sizeof values);
    return load(values);
  }
  memset(values, 0, sizeof values);
  memcpy(values, in, 4 * left);
  return load(values);
}

inline F load_halves(const uint8_t* in, size_t left) {
  if (left >= kWide) return load_f16(in);
  uint8_t halves[2 * kWide] = {};
  memcpy(halves, in, 2 * left);
  return load_f16(halves);
}

// Calls sink(i, F) for each sixteen elements from i on.
template <class Sink>
inline void decode_row_as(KvType type, const uint8_t* in, size_t count, Sink sink) {
  switch (type) {
    case KvType::kF32:
      for (size_t i = 0; i < count; i += kWide) sink(i, load_floats(in + 4 * i, count - i));
      return;
    case KvType::kF16:
      for (size_t i = 0; i < count; i += kWide) sink(i, load_halves(in + 2 * i, count - i));
      return;
    case KvType::kQ8:
    case KvType::kQ4: break;
  }
  for (size_t i = 0; i < count; i += kKvGroup) {
    F a, b;
    if (type == KvType::kQ8) {
      decode_q8_group(in, &a, &b);
      in += 2 + kKvGroup;
    } else {
      decode_q4_group(in, &a, &b);
      in += 2 + kKvGroup / 2;
    }
    sink(i, a);
    if (i + kWide < count) sink(i + kWide, b);
  }
}

// Writes zeros up to the next multiple of sixteen.
void decode_padded(KvType type, const uint8_t* in, size_t count, float* out) {
  decode_row_as(type, in, count, [out](size_t i, F x) { store(out + i, x); });
}

void decode_kv(KvType type, const uint8_t* in, size_t count, float* out) {
  decode_row_as(type, in, count, [out, count](size_t i, F x) {
    store_some(out + i, x, least_of(kWide, count - i));
  });
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
