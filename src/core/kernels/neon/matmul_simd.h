// Primitives of the products in pairs of 128-bit registers: C is 32 codes, S 32 bytes of
// activations (or 16 of 16 bits), I eight 32-bit whole numbers, V eight floats; meanings as in
// avx2/matmul_simd.h. Files bring P, the sums of byte products, as their processors have them.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct C {
  uint8x16_t a, b;
};
struct S {
  int8x16_t a, b;
};
struct I {
  int32x4_t a, b;
};
struct V {
  float32x4_t a, b;
};

inline S load_values(const uint8_t* p) {
  return {vreinterpretq_s8_u8(vld1q_u8(p)), vreinterpretq_s8_u8(vld1q_u8(p + 16))};
}
inline S load_values(const uint8_t* p, const uint8_t* q) {
  return {vreinterpretq_s8_u8(vld1q_u8(p)), vreinterpretq_s8_u8(vld1q_u8(q))};
}
inline S splat_values(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, 4);
  const int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(word));
  return {v, v};
}

// ---- codes ----

inline C codes(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p + 16)}; }
inline void store_codes(uint8_t* p, C c) {
  vst1q_u8(p, c.a);
  vst1q_u8(p + 16, c.b);
}
inline C splat_code(int code) {
  const uint8x16_t v = vdupq_n_u8(static_cast<uint8_t>(code));
  return {v, v};
}
inline C operator&(C x, C y) { return {vandq_u8(x.a, y.a), vandq_u8(x.b, y.b)}; }
inline C operator|(C x, C y) { return {vorrq_u8(x.a, y.a), vorrq_u8(x.b, y.b)}; }
inline C operator^(C x, C y) { return {veorq_u8(x.a, y.a), veorq_u8(x.b, y.b)}; }
inline C shift_left(C x, int count) {
  const int8x16_t by = vdupq_n_s8(static_cast<int8_t>(count));
  return {vshlq_u8(x.a, by), vshlq_u8(x.b, by)};
}
inline C shift_right(C x, int count) { return shift_left(x, -count); }
inline C look_up(const uint8_t* table, C code) {
  const uint8x16_t t = vld1q_u8(table);
  return {vqtbl1q_u8(t, code.a), vqtbl1q_u8(t, code.b)};
}
inline C spread_bits(const uint8_t* p) {
  static constexpr uint8_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x8_t bit = vld1_u8(kBits);
  const uint8x16_t bits = vcombine_u8(bit, bit);
  return {vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), bits),
          vtstq_u8(vcombine_u8(vdup_n_u8(p[2]), vdup_n_u8(p[3])), bits)};
}

inline C pairs_apart(const uint8_t* p) {
  const uint8x8_t v = vld1_u8(p);
  const uint8x16_t mask = vdupq_n_u8(3);
  return {vandq_u8(vcombine_u8(v, vshr_n_u8(v, 2)), mask),
          vandq_u8(vcombine_u8(vshr_n_u8(v, 4), vshr_n_u8(v, 6)), mask)};
}
inline C nibbles_apart(const uint8_t* p) {
  const uint8x16_t v = vld1q_u8(p);
  return {vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8(v, 4)};
}
inline void part_nibbles(const uint8_t* p, const uint8_t* q, C& low, C& high) {
  const C first = nibbles_apart(p), second = nibbles_apart(q);
  low = {first.a, second.a};
  high = {first.b, second.b};
}
inline void part_nibbles(const uint8_t* p, C& low, C& high) { part_nibbles(p, p + 16, low, high); }
inline C nibbles(const uint8_t* p) {
  const C apart = nibbles_apart(p);
  return {vzip1q_u8(apart.a, apart.b), vzip2q_u8(apart.a, apart.b)};
}
// Sixteen codes: each 16-bit lane takes the two bytes that hold a pair of codes.
template <int kBits>
inline uint8x16_t stream_half(const uint8_t* p) {
  static constexpr struct Tables {
    uint8_t bytes[16];
    int16_t shifts[8];
    constexpr Tables() : bytes(), shifts() {
      for (int i = 0; i < 8; ++i) {
        const int bit = 2 * kBits * i;
        bytes[2 * i] = static_cast<uint8_t>(bit / 8);
        bytes[2 * i + 1] = static_cast<uint8_t>(bit / 8 + 1);
        shifts[i] = static_cast<int16_t>(-(bit % 8));
      }
    }
  } kTables;
  constexpr uint16_t kMask = (1 << kBits) - 1;
  const uint16x8_t windows = vreinterpretq_u16_u8(vqtbl1q_u8(vld1q_u8(p), vld1q_u8(kTables.bytes)));
  const uint16x8_t pairs = vshlq_u16(windows, vld1q_s16(kTables.shifts));
  const uint16x8_t even = vandq_u16(pairs, vdupq_n_u16(kMask));
  const uint16x8_t odd = vandq_u16(vshlq_n_u16(pairs, 8 - kBits), vdupq_n_u16(kMask << 8));
  return vreinterpretq_u8_u16(vorrq_u16(even, odd));
}
template <int kBits>
inline C stream(const uint8_t* p) {
  return {stream_half<kBits>(p), stream_half<kBits>(p + 2 * kBits)};
}

// ---- sums ----

// Only where registers are few.
inline void in_order(I&) {}
inline void in_order(I&, I&) {}
inline I no_sum() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
inline I operator+(I x, I y) { return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b)}; }
inline I operator-(I x, I y) { return {vsubq_s32(x.a, y.a), vsubq_s32(x.b, y.b)}; }
inline I operator*(I x, I y) { return {vmulq_s32(x.a, y.a), vmulq_s32(x.b, y.b)}; }
inline I splat_sum(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x)}; }
inline int8x16_t even_half(uint8x16_t c) {
  return vreinterpretq_s8_u16(vandq_u16(vreinterpretq_u16_u8(c), vdupq_n_u16(0xff)));
}
inline int8x16_t odd_half(uint8x16_t c) {
  return vreinterpretq_s8_u16(vshrq_n_u16(vreinterpretq_u16_u8(c), 8));
}
inline S even_codes(C c) { return {even_half(c.a), even_half(c.b)}; }
inline S odd_codes(C c) { return {odd_half(c.a), odd_half(c.b)}; }
template <int kBits>
inline void stream_wide(const uint8_t* p, S& even, S& odd) {
  const C c = stream<kBits>(p);
  even = even_codes(c);
  odd = odd_codes(c);
}

inline int32x4_t multiply_wide_half(int8x16_t x, int8x16_t y) {
  const int16x8_t p = vreinterpretq_s16_s8(x), q = vreinterpretq_s16_s8(y);
  return vpaddq_s32(vmull_s16(vget_low_s16(p), vget_low_s16(q)), vmull_high_s16(p, q));
}
inline I multiply_wide(S x, S y) {
  return {multiply_wide_half(x.a, y.a), multiply_wide_half(x.b, y.b)};
}

struct W {
  int16x8_t a, b;
};
inline W sixteen_whole(uint64_t low, uint64_t high) {
  const int8x8_t v = vcreate_s8(low), w = vcreate_s8(high);
  return {vmovl_s8(vuzp1_s8(v, w)), vmovl_s8(vuzp2_s8(v, w))};
}
inline W eight_whole(uint64_t bytes) {
  const int16x8_t v = vmovl_s8(vcreate_s8(bytes));
  return {v, v};
}
inline I weigh(W w, S sums) {
  return multiply_wide({vreinterpretq_s8_s16(w.a), vreinterpretq_s8_s16(w.b)}, sums);
}
template <int kPlace>
inline int32x4_t scaled_by(int32x4_t sum, int16x8_t scales) {
  const int16x4_t four = kPlace < 4 ? vget_low_s16(scales) : vget_high_s16(scales);
  return vmulq_laneq_s32(sum, vmovl_s16(four), kPlace % 4);
}
// The sums of byte products are whole numbers already.
template <int kPlace>
inline I widen_scaled(I sum, W w) {
  return {scaled_by<kPlace>(sum.a, w.a), scaled_by<kPlace>(sum.b, w.b)};
}
inline I widen_scaled(I sum, const int16_t* scales) {
  const int16x8_t low = vld1q_s16(scales), high = vld1q_s16(scales + 8);
  return {vmulq_s32(sum.a, vshrq_n_s32(vreinterpretq_s32_s16(low), 16)),
          vmulq_s32(sum.b, vshrq_n_s32(vreinterpretq_s32_s16(high), 16))};
}

template <int>
inline I pair_up(I x, I y) {
  return {vpaddq_s32(x.a, y.a), vpaddq_s32(x.b, y.b)};
}
template <int>
inline I four_up(I x, I y) {
  return {vpaddq_s32(x.a, y.a), vpaddq_s32(x.b, y.b)};
}
inline void part_halves(I x, I y, I& low, I& high) {
  low = {x.a, y.a};
  high = {x.b, y.b};
}

// Four by four 32-bit lanes.
inline void transpose_4(uint32x4_t* r) {
  const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
  const uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
  const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
  const uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
  r[0] = vreinterpretq_u32_u64(vtrn1q_u64(a, c));
  r[1] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
  r[2] = vreinterpretq_u32_u64(vtrn2q_u64(a, c));
  r[3] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
}
inline void store_transposed(const C* r, uint8_t* out, size_t stride) {
  uint32x4_t quarters[4][4];  // upper left, lower left, upper right, lower right
  for (int i = 0; i < 4; ++i) {
    quarters[0][i] = vreinterpretq_u32_u8(r[i].a);
    quarters[1][i] = vreinterpretq_u32_u8(r[i + 4].a);
    quarters[2][i] = vreinterpretq_u32_u8(r[i].b);
    quarters[3][i] = vreinterpretq_u32_u8(r[i + 4].b);
  }
  for (auto& quarter : quarters) transpose_4(quarter);
  for (size_t i = 0; i < 4; ++i) {
    store_codes(out + i * stride,
                {vreinterpretq_u8_u32(quarters[0][i]), vreinterpretq_u8_u32(quarters[1][i])});
    store_codes(out + (i + 4) * stride,
                {vreinterpretq_u8_u32(quarters[2][i]), vreinterpretq_u8_u32(quarters[3][i])});
  }
}

// ---- floats ----

inline V load_v(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
inline void store_v(float* p, V x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
}
inline V splat_v(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline V operator*(V x, V y) { return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b)}; }
inline V operator+(V x, V y) { return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b)}; }
inline V operator/(V x, V y) { return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b)}; }
inline V fma_v(V x, V y, V z) { return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)}; }
inline V to_floats(I x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b)}; }
inline V abs_v(V x) { return {vabsq_f32(x.a), vabsq_f32(x.b)}; }
inline V min_v(V x, V y) { return {vminq_f32(x.a, y.a), vminq_f32(x.b, y.b)}; }
inline V max_v(V x, V y) { return {vmaxq_f32(x.a, y.a), vmaxq_f32(x.b, y.b)}; }
inline V round_v(V x) { return {vrndnq_f32(x.a), vrndnq_f32(x.b)}; }
inline I to_whole(V x) { return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b)}; }
inline void store_whole(int32_t* p, I x) {
  vst1q_s32(p, x.a);
  vst1q_s32(p + 4, x.b);
}
// Eight bytes, the first in lane 0.
inline V bytes_to_floats(uint64_t bytes) {
  const uint16x8_t v = vmovl_u8(vcreate_u8(bytes));
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(v)))};
}
inline V signed_bytes_to_floats(uint64_t bytes) {
  const int16x8_t v = vmovl_s8(vcreate_s8(bytes));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(v)))};
}
inline float32x4_t load_half_4(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
inline float32x4_t load_bfloat_4(const uint8_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
inline V load_8(Element element, const uint8_t* p) {
  switch (element) {
    case kElementF32: return load_v(reinterpret_cast<const float*>(p));
    case kElementF16: return {load_half_4(p), load_half_4(p + 8)};
    case kElementBF16: break;
  }
  return {load_bfloat_4(p), load_bfloat_4(p + 8)};
}
inline float half(const uint8_t* p) {
  uint16_t bits;
  memcpy(&bits, p, 2);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
inline V halves_of(const uint8_t* const* rows, size_t at) {
  uint8_t bytes[16];
  for (int i = 0; i < 8; ++i) memcpy(bytes + 2 * i, rows[i] + at, 2);
  return {load_half_4(bytes), load_half_4(bytes + 8)};
}
inline void two_halves_of(const uint8_t* const* rows, size_t at, V& first, V& second) {
  first = halves_of(rows, at);
  second = halves_of(rows, at + 2);
}
inline float32x4_t e8m0_4(uint16x4_t bytes) {
  const uint32x4_t shifted = vshlq_n_u32(vmovl_u16(bytes), 23);
  return vreinterpretq_f32_u32(vmaxq_u32(shifted, vdupq_n_u32(0x00400000)));
}
inline V e8m0_to_floats(uint64_t bytes) {
  const uint16x8_t v = vmovl_u8(vcreate_u8(bytes));
  return {e8m0_4(vget_low_u16(v)), e8m0_4(vget_high_u16(v))};
}
inline V e4m3_to_floats(uint64_t bytes) {
  const uint16x8_t v = vmovl_u8(vcreate_u8(bytes));
  const uint16x8_t magnitude = vandq_u16(v, vdupq_n_u16(0x7f));
  const uint16x8_t nan = vandq_u16(vceqq_u16(magnitude, vdupq_n_u16(0x7f)), vdupq_n_u16(0x7e00));
  const uint16x8_t sign = vshlq_n_u16(vandq_u16(v, vdupq_n_u16(0x80)), 8);
  const uint16x8_t bits = vorrq_u16(vorrq_u16(vshlq_n_u16(magnitude, 7), sign), nan);
  const float16x8_t halves = vreinterpretq_f16_u16(bits);
  return {vmulq_n_f32(vcvt_f32_f16(vget_low_f16(halves)), 256.0f),
          vmulq_n_f32(vcvt_f32_f16(vget_high_f16(halves)), 256.0f)};
}
inline V small_e4m3_to_floats(uint64_t bytes) {
  const int16x8_t v = vshlq_n_s16(vmovl_s8(vcreate_s8(bytes)), 7);
  const float16x8_t halves =
      vreinterpretq_f16_s16(vandq_s16(v, vdupq_n_s16(static_cast<int16_t>(~0x4000))));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_f32_f16(vget_high_f16(halves))};
}
inline void store_transposed(const V* r, float (*out)[8]) {
  C c[8];
  for (int i = 0; i < 8; ++i) c[i] = {vreinterpretq_u8_f32(r[i].a), vreinterpretq_u8_f32(r[i].b)};
  store_transposed(c, reinterpret_cast<uint8_t*>(out), sizeof *out);
}
inline float fold_lanes(V x, V y) {
  const float32x4_t c = vaddq_f32(vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b));
  const float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
  return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
