// Sixteen lanes in one 512-bit register; primitives as defined in scalar/simd.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace sluice::kernels::avx512 {
namespace {

struct F {
  __m512 v;
};
struct M {
  __mmask16 v;
};
struct D {
  __m512d low, high;
};

inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F splat(float x) { return {_mm512_set1_ps(x)}; }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F fnma(F a, F b, F c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F min_(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F max_(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F abs_(F a) { return {_mm512_abs_ps(a.v)}; }
inline F neg(F a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
// vrangeps picks the larger magnitude and clears its sign in one instruction.
inline F max_abs(F m, F e) { return {_mm512_range_ps(m.v, e.v, 0x0b)}; }
inline F round_even(F a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline M gt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline M lt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M le(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline M eq(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M both(M a, M b) { return {static_cast<__mmask16>(a.v & b.v)}; }
inline F select(M m, F a, F b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }

inline F round_bf16(F a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return {
      _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline F round_4_bits(F a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7ffff)), odd);
  return {
      _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xfff00000u))))};
}
inline F high_12(F a) {
  return {_mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_castps_si512(a.v), 20))};
}
inline F from_high_12(F n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtps_epi32(n.v), 20))};
}
inline F floor_8(F n) {
  return {_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(~7)))};
}
inline M sign_bit(F a) { return {_mm512_movepi32_mask(_mm512_castps_si512(a.v))}; }
inline F round_f16(F a) {
  return {_mm512_cvtph_ps(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}
inline F load_bf16(const uint8_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
inline F load_f16(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_bf16(uint8_t* p, F a) {
  const __m512i u = _mm512_srli_epi32(_mm512_castps_si512(a.v), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(u));
}
inline void store_f16(uint8_t* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_codes(const uint8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))};
}
inline void store_codes(uint8_t* p, F a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

inline __m128 fold_sum_4(__m128 a) {
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_add_ss(a, _mm_movehdup_ps(a));
}
inline float fold_sum(F a) {
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  return _mm_cvtss_f32(
      fold_sum_4(_mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1))));
}
inline float fold_min(F a) { return _mm512_reduce_min_ps(a.v); }
inline float fold_max(F a) { return _mm512_reduce_max_ps(a.v); }

// Halving sixteen registers together takes 45 instructions instead of 128.
inline F fold_min_16(const F* x) {
  __m512 t[8], u[4];
  for (int i = 0; i < 8; ++i)
    t[i] = _mm512_min_ps(_mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0x44),
                         _mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0xee));
  for (int i = 0; i < 4; ++i)
    u[i] = _mm512_min_ps(_mm512_shuffle_f32x4(t[i], t[i + 4], 0x88),
                         _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd));
  for (int i = 0; i < 2; ++i)
    t[i] = _mm512_min_ps(_mm512_unpacklo_ps(u[i], u[i + 2]), _mm512_unpackhi_ps(u[i], u[i + 2]));
  const __m512 r = _mm512_min_ps(_mm512_unpacklo_ps(t[0], t[1]), _mm512_unpackhi_ps(t[0], t[1]));
  return {_mm512_shuffle_f32x4(r, r, 0xd8)};  // blocks are in the order 0, 2, 1, 3
}
inline F fold_max_16(const F* x) {
  __m512 t[8], u[4];
  for (int i = 0; i < 8; ++i)
    t[i] = _mm512_max_ps(_mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0x44),
                         _mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0xee));
  for (int i = 0; i < 4; ++i)
    u[i] = _mm512_max_ps(_mm512_shuffle_f32x4(t[i], t[i + 4], 0x88),
                         _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd));
  for (int i = 0; i < 2; ++i)
    t[i] = _mm512_max_ps(_mm512_unpacklo_ps(u[i], u[i + 2]), _mm512_unpackhi_ps(u[i], u[i + 2]));
  const __m512 r = _mm512_max_ps(_mm512_unpacklo_ps(t[0], t[1]), _mm512_unpackhi_ps(t[0], t[1]));
  return {_mm512_shuffle_f32x4(r, r, 0xd8)};  // blocks are in the order 0, 2, 1, 3
}

inline D splat_d(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
inline D widen(F a) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v)),
          _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))};
}
inline D operator+(D a, D b) {
  return {_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}
inline D operator-(D a, D b) {
  return {_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
}
inline D operator*(D a, D b) {
  return {_mm512_mul_pd(a.low, b.low), _mm512_mul_pd(a.high, b.high)};
}
inline D max_abs(D m, D e) {
  return {_mm512_range_pd(m.low, e.low, 0x0b), _mm512_range_pd(m.high, e.high, 0x0b)};
}
inline void store(double* p, D a) {
  _mm512_storeu_pd(p, a.low);
  _mm512_storeu_pd(p + 8, a.high);
}

}  // namespace
}  // namespace sluice::kernels::avx512
