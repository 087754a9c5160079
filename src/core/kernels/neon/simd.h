// Sixteen lanes in four 128-bit registers; primitives as defined in scalar/simd.h. Comparisons with
// a select stand for min and max, because NEON's own return NaN where the definition does not.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace sluice::kernels::neon {
namespace {

struct F {
  float32x4_t v[4];
};
struct M {
  uint32x4_t v[4];
};
struct D {
  float64x2_t v[8];
};

#define SLUICE_QUADS(expression)                   \
  do {                                             \
    r.v[0] = [&](int i) { return expression; }(0); \
    r.v[1] = [&](int i) { return expression; }(1); \
    r.v[2] = [&](int i) { return expression; }(2); \
    r.v[3] = [&](int i) { return expression; }(3); \
    return r;                                      \
  } while (false)

inline F load(const float* p) {
  F r;
  SLUICE_QUADS(vld1q_f32(p + 4 * i));
}
inline void store(float* p, F a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F splat(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {{v, v, v, v}};
}
inline F operator+(F a, F b) {
  F r;
  SLUICE_QUADS(vaddq_f32(a.v[i], b.v[i]));
}
inline F operator-(F a, F b) {
  F r;
  SLUICE_QUADS(vsubq_f32(a.v[i], b.v[i]));
}
inline F operator*(F a, F b) {
  F r;
  SLUICE_QUADS(vmulq_f32(a.v[i], b.v[i]));
}
inline F operator/(F a, F b) {
  F r;
  SLUICE_QUADS(vdivq_f32(a.v[i], b.v[i]));
}
inline F fma(F a, F b, F c) {
  F r;
  SLUICE_QUADS(vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
inline F fnma(F a, F b, F c) {
  F r;
  SLUICE_QUADS(vfmsq_f32(c.v[i], a.v[i], b.v[i]));
}
inline float32x4_t min_4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline float32x4_t max_4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline F min_(F a, F b) {
  F r;
  SLUICE_QUADS(min_4(a.v[i], b.v[i]));
}
inline F max_(F a, F b) {
  F r;
  SLUICE_QUADS(max_4(a.v[i], b.v[i]));
}
inline F abs_(F a) {
  F r;
  SLUICE_QUADS(vabsq_f32(a.v[i]));
}
inline F neg(F a) {
  F r;
  SLUICE_QUADS(vnegq_f32(a.v[i]));
}
// fmaxnm already ignores a NaN beside a number.
inline F max_abs(F m, F e) {
  F r;
  SLUICE_QUADS(vmaxnmq_f32(m.v[i], vabsq_f32(e.v[i])));
}
inline F round_even(F a) {
  F r;
  SLUICE_QUADS(vrndnq_f32(a.v[i]));
}
inline M gt(F a, F b) {
  M r;
  SLUICE_QUADS(vcgtq_f32(a.v[i], b.v[i]));
}
inline M lt(F a, F b) {
  M r;
  SLUICE_QUADS(vcltq_f32(a.v[i], b.v[i]));
}
inline M le(F a, F b) {
  M r;
  SLUICE_QUADS(vcleq_f32(a.v[i], b.v[i]));
}
inline M eq(F a, F b) {
  M r;
  SLUICE_QUADS(vceqq_f32(a.v[i], b.v[i]));
}
inline M both(M a, M b) {
  M r;
  SLUICE_QUADS(vandq_u32(a.v[i], b.v[i]));
}
inline F select(M m, F a, F b) {
  F r;
  SLUICE_QUADS(vbslq_f32(m.v[i], a.v[i], b.v[i]));
}

inline float32x4_t round_bf16_4(float32x4_t a) {
  const uint32x4_t u = vreinterpretq_u32_f32(a);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t sum = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
  return vreinterpretq_f32_u32(vandq_u32(sum, vdupq_n_u32(0xffff0000u)));
}
inline F round_bf16(F a) {
  F r;
  SLUICE_QUADS(round_bf16_4(a.v[i]));
}
inline F round_f16(F a) {
  F r;
  SLUICE_QUADS(vcvt_f32_f16(vcvt_f16_f32(a.v[i])));
}
inline float32x4_t round_4_bits_4(float32x4_t a) {
  const uint32x4_t u = vreinterpretq_u32_f32(a);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 20), vdupq_n_u32(1));
  const uint32x4_t sum = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7ffff)), odd);
  return vreinterpretq_f32_u32(vandq_u32(sum, vdupq_n_u32(0xfff00000u)));
}
inline F round_4_bits(F a) {
  F r;
  SLUICE_QUADS(round_4_bits_4(a.v[i]));
}
inline F high_12(F a) {
  F r;
  SLUICE_QUADS(vcvtq_f32_u32(vshrq_n_u32(vreinterpretq_u32_f32(a.v[i]), 20)));
}
inline F from_high_12(F n) {
  F r;
  SLUICE_QUADS(vreinterpretq_f32_u32(vshlq_n_u32(vcvtq_u32_f32(n.v[i]), 20)));
}
inline F floor_8(F n) {
  F r;
  SLUICE_QUADS(vcvtq_f32_u32(vandq_u32(vcvtq_u32_f32(n.v[i]), vdupq_n_u32(~7u))));
}
inline M sign_bit(F a) {
  M r;
  SLUICE_QUADS(vcltzq_s32(vreinterpretq_s32_f32(a.v[i])));
}
inline uint16x4_t load_4x16(const uint8_t* p) { return vreinterpret_u16_u8(vld1_u8(p)); }
inline void store_4x16(uint8_t* p, uint16x4_t a) { vst1_u8(p, vreinterpret_u8_u16(a)); }
inline F load_bf16(const uint8_t* p) {
  F r;
  SLUICE_QUADS(vreinterpretq_f32_u32(vshll_n_u16(load_4x16(p + 8 * i), 16)));
}
inline F load_f16(const uint8_t* p) {
  F r;
  SLUICE_QUADS(vcvt_f32_f16(vreinterpret_f16_u16(load_4x16(p + 8 * i))));
}
inline void store_bf16(uint8_t* p, F a) {
  for (int i = 0; i < 4; ++i) store_4x16(p + 8 * i, vshrn_n_u32(vreinterpretq_u32_f32(a.v[i]), 16));
}
inline void store_f16(uint8_t* p, F a) {
  for (int i = 0; i < 4; ++i) store_4x16(p + 8 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
inline F load_codes(const uint8_t* p) {
  const uint8x16_t codes = vld1q_u8(p);
  const uint16x8_t a = vmovl_u8(vget_low_u8(codes)), b = vmovl_u8(vget_high_u8(codes));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(a))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(a))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(b))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(b)))}};
}
inline void store_codes(uint8_t* p, F a) {
  const uint16x8_t low =
      vcombine_u16(vmovn_u32(vcvtq_u32_f32(a.v[0])), vmovn_u32(vcvtq_u32_f32(a.v[1])));
  const uint16x8_t high =
      vcombine_u16(vmovn_u32(vcvtq_u32_f32(a.v[2])), vmovn_u32(vcvtq_u32_f32(a.v[3])));
  vst1q_u8(p, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

inline float fold_sum(F a) {
  const float32x4_t c = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
  return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
inline float fold_min(F a) {
  return vminvq_f32(vminq_f32(vminq_f32(a.v[0], a.v[1]), vminq_f32(a.v[2], a.v[3])));
}
inline float fold_max(F a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

inline float32x4_t fold_min_1(F a) {
  return vminq_f32(vminq_f32(a.v[0], a.v[1]), vminq_f32(a.v[2], a.v[3]));
}
inline float32x4_t fold_min_4(const F* x) {
  return vpminq_f32(vpminq_f32(fold_min_1(x[0]), fold_min_1(x[1])),
                    vpminq_f32(fold_min_1(x[2]), fold_min_1(x[3])));
}
inline F fold_min_16(const F* x) {
  F r;
  SLUICE_QUADS(fold_min_4(x + 4 * i));
}
inline float32x4_t fold_max_1(F a) {
  return vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]));
}
inline float32x4_t fold_max_4(const F* x) {
  return vpmaxq_f32(vpmaxq_f32(fold_max_1(x[0]), fold_max_1(x[1])),
                    vpmaxq_f32(fold_max_1(x[2]), fold_max_1(x[3])));
}
inline F fold_max_16(const F* x) {
  F r;
  SLUICE_QUADS(fold_max_4(x + 4 * i));
}

inline D splat_d(double x) {
  const float64x2_t v = vdupq_n_f64(x);
  return {{v, v, v, v, v, v, v, v}};
}
inline D widen(F a) {
  D r;
  for (int i = 0; i < 4; ++i) {
    r.v[2 * i] = vcvt_f64_f32(vget_low_f32(a.v[i]));
    r.v[2 * i + 1] = vcvt_high_f64_f32(a.v[i]);
  }
  return r;
}
inline D operator+(D a, D b) {
  D r;
  for (int i = 0; i < 8; ++i) r.v[i] = vaddq_f64(a.v[i], b.v[i]);
  return r;
}
inline D operator-(D a, D b) {
  D r;
  for (int i = 0; i < 8; ++i) r.v[i] = vsubq_f64(a.v[i], b.v[i]);
  return r;
}
inline D operator*(D a, D b) {
  D r;
  for (int i = 0; i < 8; ++i) r.v[i] = vmulq_f64(a.v[i], b.v[i]);
  return r;
}
inline D max_abs(D m, D e) {
  D r;
  for (int i = 0; i < 8; ++i) r.v[i] = vmaxnmq_f64(m.v[i], vabsq_f64(e.v[i]));
  return r;
}
inline void store(double* p, D a) {
  for (int i = 0; i < 8; ++i) vst1q_f64(p + 2 * i, a.v[i]);
}

#undef SLUICE_QUADS

}  // namespace
}  // namespace sluice::kernels::neon
