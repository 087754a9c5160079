// Sixteen lanes in plain C++: the portable form of the primitives that generic/ is written in, and
// their definition. min_ and max_ return b unless a is strictly smaller or larger.
#pragma once

#include <stdint.h>
#include <string.h>

namespace sluice::kernels::scalar {
namespace {

struct F {
  float v[16];
};
struct M {
  bool v[16];
};
struct D {
  double v[16];
};

#define SLUICE_LANES(expression)                        \
  do {                                                  \
    for (int l = 0; l < 16; ++l) r.v[l] = (expression); \
    return r;                                           \
  } while (false)

inline F load(const float* p) {
  F r;
  memcpy(r.v, p, 64);
  return r;
}
inline void store(float* p, F a) { memcpy(p, a.v, 64); }
inline F splat(float x) {
  F r;
  SLUICE_LANES(x);
}
inline F operator+(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] + b.v[l]);
}
inline F operator-(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] - b.v[l]);
}
inline F operator*(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] * b.v[l]);
}
inline F operator/(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] / b.v[l]);
}
inline F fma(F a, F b, F c) {
  F r;
  SLUICE_LANES(__builtin_fmaf(a.v[l], b.v[l], c.v[l]));
}
inline F fnma(F a, F b, F c) {
  F r;
  SLUICE_LANES(__builtin_fmaf(-a.v[l], b.v[l], c.v[l]));
}
inline F min_(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] < b.v[l] ? a.v[l] : b.v[l]);
}
inline F max_(F a, F b) {
  F r;
  SLUICE_LANES(a.v[l] > b.v[l] ? a.v[l] : b.v[l]);
}
inline F abs_(F a) {
  F r;
  SLUICE_LANES(__builtin_fabsf(a.v[l]));
}
inline F neg(F a) {
  F r;
  SLUICE_LANES(-a.v[l]);
}
// The larger of m ≥ 0 and |e|; m when e is NaN.
inline F max_abs(F m, F e) { return max_(abs_(e), m); }
inline F round_even(F a) {
  F r;
  SLUICE_LANES(__builtin_rintf(a.v[l]));
}
inline M gt(F a, F b) {
  M r;
  SLUICE_LANES(a.v[l] > b.v[l]);
}
inline M lt(F a, F b) {
  M r;
  SLUICE_LANES(a.v[l] < b.v[l]);
}
inline M le(F a, F b) {
  M r;
  SLUICE_LANES(a.v[l] <= b.v[l]);
}
inline M eq(F a, F b) {
  M r;
  SLUICE_LANES(a.v[l] == b.v[l]);
}
inline M both(M a, M b) {
  M r;
  SLUICE_LANES(a.v[l] && b.v[l]);
}
inline F select(M m, F a, F b) {
  F r;
  SLUICE_LANES(m.v[l] ? a.v[l] : b.v[l]);
}

inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

// Finite values only, as everywhere here.
inline uint32_t to_bf16(float x) {
  const uint32_t u = bits_of(x);
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
inline uint32_t to_f16(float x) {
  const uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, size = u & 0x7fffffffu;
  if (size >= 0x477ff000u) return sign | 0x7c00u;
  if (size < 0x38800000u) return sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u);
  return sign | ((size + 0xfffu + ((size >> 13) & 1u) - 0x38000000u) >> 13);
}
inline float from_f16(uint32_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu;
  if (exponent == 0x1f) return float_of(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) return float_of(bits_of(static_cast<float>(mantissa) * 0x1p-24f) | sign);
  return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}
inline F round_bf16(F a) {
  F r;
  SLUICE_LANES(float_of(to_bf16(a.v[l]) << 16));
}
inline F round_f16(F a) {
  F r;
  SLUICE_LANES(from_f16(to_f16(a.v[l])));
}

// ---- f32's upper twelve bits: what small floats are made of. Not for negative numbers. ----

// To four significant bits, half to even.
inline F round_4_bits(F a) {
  F r;
  SLUICE_LANES(
      float_of((bits_of(a.v[l]) + 0x7ffffu + ((bits_of(a.v[l]) >> 20) & 1u)) & 0xfff00000u));
}
// Exponent and three bits of mantissa as a number, and back.
inline F high_12(F a) {
  F r;
  SLUICE_LANES(static_cast<float>(bits_of(a.v[l]) >> 20));
}
inline F from_high_12(F n) {
  F r;
  SLUICE_LANES(float_of(static_cast<uint32_t>(n.v[l]) << 20));
}
// The largest multiple of eight that is no more; whole numbers below 2²⁴.
inline F floor_8(F n) {
  F r;
  SLUICE_LANES(static_cast<float>(static_cast<uint32_t>(n.v[l]) & ~7u));
}
// Also of −0.
inline M sign_bit(F a) {
  M r;
  SLUICE_LANES((bits_of(a.v[l]) >> 31) != 0);
}

inline F load_bf16(const uint8_t* p) {
  uint16_t h[16];
  memcpy(h, p, 32);
  F r;
  SLUICE_LANES(float_of(uint32_t{h[l]} << 16));
}
inline F load_f16(const uint8_t* p) {
  uint16_t h[16];
  memcpy(h, p, 32);
  F r;
  SLUICE_LANES(from_f16(h[l]));
}
// Values already rounded.
inline void store_bf16(uint8_t* p, F a) {
  uint16_t h[16];
  for (int l = 0; l < 16; ++l) h[l] = static_cast<uint16_t>(bits_of(a.v[l]) >> 16);
  memcpy(p, h, 32);
}
inline void store_f16(uint8_t* p, F a) {
  uint16_t h[16];
  for (int l = 0; l < 16; ++l) h[l] = static_cast<uint16_t>(to_f16(a.v[l]));
  memcpy(p, h, 32);
}

// Whole numbers from 0 to 255.
inline F load_codes(const uint8_t* p) {
  F r;
  SLUICE_LANES(static_cast<float>(p[l]));
}
inline void store_codes(uint8_t* p, F a) {
  for (int l = 0; l < 16; ++l) p[l] = static_cast<uint8_t>(static_cast<int>(a.v[l]));
}

// Lanes l and l + 8, then l + 4, l + 2, l + 1.
inline float fold_sum(F a) {
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) a.v[l] = a.v[l] + a.v[l + half];
  return a.v[0];
}
inline float fold_min(F a) {
  float x = a.v[0];
  for (int l = 1; l < 16; ++l) x = a.v[l] < x ? a.v[l] : x;
  return x;
}
inline float fold_max(F a) {
  float x = a.v[0];
  for (int l = 1; l < 16; ++l) x = a.v[l] > x ? a.v[l] : x;
  return x;
}
// Lane i: the least, or largest, of all lanes of x[i]. No NaNs.
inline F fold_min_16(const F* x) {
  F r;
  SLUICE_LANES(fold_min(x[l]));
}
inline F fold_max_16(const F* x) {
  F r;
  SLUICE_LANES(fold_max(x[l]));
}

// Doubles.
inline D splat_d(double x) {
  D r;
  SLUICE_LANES(x);
}
inline D widen(F a) {
  D r;
  SLUICE_LANES(static_cast<double>(a.v[l]));
}
inline D operator+(D a, D b) {
  D r;
  SLUICE_LANES(a.v[l] + b.v[l]);
}
inline D operator-(D a, D b) {
  D r;
  SLUICE_LANES(a.v[l] - b.v[l]);
}
inline D operator*(D a, D b) {
  D r;
  SLUICE_LANES(a.v[l] * b.v[l]);
}
inline D max_abs(D m, D e) {
  D r;
  SLUICE_LANES(__builtin_fabs(e.v[l]) > m.v[l] ? __builtin_fabs(e.v[l]) : m.v[l]);
}
inline void store(double* p, D a) { memcpy(p, a.v, 128); }

#undef SLUICE_LANES

}  // namespace
}  // namespace sluice::kernels::scalar
