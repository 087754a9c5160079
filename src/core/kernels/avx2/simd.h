// Sixteen lanes in two 256-bit registers; primitives as defined in scalar/simd.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace sluice::kernels::avx2 {
namespace {

struct F {
  __m256 a, b;
};
struct M {
  __m256 a, b;
};
struct D {
  __m256d v[4];
};

inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline F splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F operator/(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F fnma(F x, F y, F z) {
  return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
inline F min_(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F max_(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F abs_(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F neg(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(sign, x.a), _mm256_xor_ps(sign, x.b)};
}
inline F max_abs(F m, F e) { return max_(abs_(e), m); }
inline F round_even(F x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
inline M gt(F x, F y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
inline M lt(F x, F y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
inline M le(F x, F y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
inline M eq(F x, F y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)};
}
inline M both(M x, M y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
inline F select(M m, F x, F y) {
  return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}

inline __m256 round_bf16_8(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(
      _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline F round_bf16(F x) { return {round_bf16_8(x.a), round_bf16_8(x.b)}; }
inline __m256 round_4_bits_8(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 20), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7ffff)), odd);
  return _mm256_castsi256_ps(
      _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xfff00000u))));
}
inline F round_4_bits(F x) { return {round_4_bits_8(x.a), round_4_bits_8(x.b)}; }
inline F high_12(F x) {
  return {_mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(x.a), 20)),
          _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(x.b), 20))};
}
inline F from_high_12(F n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtps_epi32(n.a), 20)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtps_epi32(n.b), 20))};
}
inline __m256 floor_8_8(__m256 n) {
  return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_cvtps_epi32(n), _mm256_set1_epi32(~7)));
}
inline F floor_8(F n) { return {floor_8_8(n.a), floor_8_8(n.b)}; }
inline M sign_bit(F x) { return {x.a, x.b}; }  // all that a blend looks at

inline __m128i to_f16_8(__m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
inline F round_f16(F x) { return {_mm256_cvtph_ps(to_f16_8(x.a)), _mm256_cvtph_ps(to_f16_8(x.b))}; }
inline __m128i load_8x16(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline void store_8x16(uint8_t* p, __m128i x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x);
}
inline F load_bf16(const uint8_t* p) {
  const __m256i a = _mm256_cvtepu16_epi32(load_8x16(p));
  const __m256i b = _mm256_cvtepu16_epi32(load_8x16(p + 16));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
inline F load_f16(const uint8_t* p) {
  return {_mm256_cvtph_ps(load_8x16(p)), _mm256_cvtph_ps(load_8x16(p + 16))};
}
// Two vectors of 32-bit numbers below 2¹⁶ to sixteen 16-bit ones in order.
inline __m256i narrow_16(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
}
inline void store_bf16(uint8_t* p, F x) {
  const __m256i h = narrow_16(_mm256_srli_epi32(_mm256_castps_si256(x.a), 16),
                              _mm256_srli_epi32(_mm256_castps_si256(x.b), 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), h);
}
inline void store_f16(uint8_t* p, F x) {
  store_8x16(p, to_f16_8(x.a));
  store_8x16(p + 16, to_f16_8(x.b));
}
inline F load_codes(const uint8_t* p) {
  const __m128i codes = load_8x16(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)))};
}
inline void store_codes(uint8_t* p, F x) {
  const __m256i h = narrow_16(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  store_8x16(p, _mm_packus_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}

inline float fold_sum(F x) {
  const __m256 b = _mm256_add_ps(x.a, x.b);
  __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float fold_min(F x) {
  const __m256 b = _mm256_min_ps(x.a, x.b);
  __m128 c = _mm_min_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = _mm_min_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_min_ss(c, _mm_movehdup_ps(c)));
}
inline float fold_max(F x) {
  const __m256 b = _mm256_max_ps(x.a, x.b);
  __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

inline F fold_min_16(const F* x) {
  __m256 t[8], u[2];
  for (int i = 0; i < 8; ++i) {
    const __m256 p = _mm256_min_ps(x[i].a, x[i].b), q = _mm256_min_ps(x[i + 8].a, x[i + 8].b);
    t[i] = _mm256_min_ps(_mm256_permute2f128_ps(p, q, 0x20), _mm256_permute2f128_ps(p, q, 0x31));
  }
  for (int i = 0; i < 2; ++i) {  // four registers of four-lane blocks to one
    const __m256* s = t + 4 * i;
    const __m256 a = _mm256_min_ps(_mm256_unpacklo_ps(s[0], s[2]), _mm256_unpackhi_ps(s[0], s[2]));
    const __m256 b = _mm256_min_ps(_mm256_unpacklo_ps(s[1], s[3]), _mm256_unpackhi_ps(s[1], s[3]));
    u[i] = _mm256_min_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  }
  return {_mm256_permute2f128_ps(u[0], u[1], 0x20), _mm256_permute2f128_ps(u[0], u[1], 0x31)};
}
inline F fold_max_16(const F* x) {
  __m256 t[8], u[2];
  for (int i = 0; i < 8; ++i) {
    const __m256 p = _mm256_max_ps(x[i].a, x[i].b), q = _mm256_max_ps(x[i + 8].a, x[i + 8].b);
    t[i] = _mm256_max_ps(_mm256_permute2f128_ps(p, q, 0x20), _mm256_permute2f128_ps(p, q, 0x31));
  }
  for (int i = 0; i < 2; ++i) {  // four registers of four-lane blocks to one
    const __m256* s = t + 4 * i;
    const __m256 a = _mm256_max_ps(_mm256_unpacklo_ps(s[0], s[2]), _mm256_unpackhi_ps(s[0], s[2]));
    const __m256 b = _mm256_max_ps(_mm256_unpacklo_ps(s[1], s[3]), _mm256_unpackhi_ps(s[1], s[3]));
    u[i] = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  }
  return {_mm256_permute2f128_ps(u[0], u[1], 0x20), _mm256_permute2f128_ps(u[0], u[1], 0x31)};
}

inline D splat_d(double x) {
  const __m256d v = _mm256_set1_pd(x);
  return {{v, v, v, v}};
}
inline D widen(F x) {
  return {{_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)),
           _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
           _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)),
           _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))}};
}
inline D operator+(D x, D y) {
  return {{_mm256_add_pd(x.v[0], y.v[0]), _mm256_add_pd(x.v[1], y.v[1]),
           _mm256_add_pd(x.v[2], y.v[2]), _mm256_add_pd(x.v[3], y.v[3])}};
}
inline D operator-(D x, D y) {
  return {{_mm256_sub_pd(x.v[0], y.v[0]), _mm256_sub_pd(x.v[1], y.v[1]),
           _mm256_sub_pd(x.v[2], y.v[2]), _mm256_sub_pd(x.v[3], y.v[3])}};
}
inline D operator*(D x, D y) {
  return {{_mm256_mul_pd(x.v[0], y.v[0]), _mm256_mul_pd(x.v[1], y.v[1]),
           _mm256_mul_pd(x.v[2], y.v[2]), _mm256_mul_pd(x.v[3], y.v[3])}};
}
inline __m256d max_abs_4(__m256d m, __m256d e) {
  return _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), e), m);
}
inline D max_abs(D m, D e) {
  return {{max_abs_4(m.v[0], e.v[0]), max_abs_4(m.v[1], e.v[1]), max_abs_4(m.v[2], e.v[2]),
           max_abs_4(m.v[3], e.v[3])}};
}
inline void store(double* p, D x) {
  _mm256_storeu_pd(p, x.v[0]);
  _mm256_storeu_pd(p + 4, x.v[1]);
  _mm256_storeu_pd(p + 8, x.v[2]);
  _mm256_storeu_pd(p + 12, x.v[3]);
}

}  // namespace
}  // namespace sluice::kernels::avx2
