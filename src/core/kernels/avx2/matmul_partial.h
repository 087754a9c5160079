// Sums of byte products in sixteen 16-bit lanes: vpmaddubsw adds two products of a code and an
// activation, which stays exact while code_max · 127 · 2 · additions ≤ 32767.
#pragma once

#include "kernels/avx2/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct P {
  __m256i v;
};
constexpr int kPartialMax = 32767;
constexpr int kScaledMax = kPartialMax;

inline P no_partial() { return {_mm256_setzero_si256()}; }
inline P multiply_add(P p, C c, S s) {
  return {_mm256_add_epi16(p.v, _mm256_maddubs_epi16(c.v, s.v))};
}
inline void in_order(P& a, P& b) { asm volatile("" : "+x"(a.v), "+x"(b.v)); }
inline I widen(P p) { return {_mm256_madd_epi16(p.v, _mm256_set1_epi16(1))}; }
// Widened and multiplied by number kPlace of each half of w.
template <int kPlace>
inline I widen_scaled(P p, W w) {
  const __m256i scale = _mm256_shuffle_epi8(w.v, _mm256_set1_epi16(kPlace * 0x202 + 0x100));
  return {_mm256_madd_epi16(p.v, scale)};
}
// By one number for each lane, which lies there twice.
inline I widen_scaled(P p, const int16_t* scales) {
  return {_mm256_madd_epi16(p.v, load_256(reinterpret_cast<const uint8_t*>(scales)))};
}

// Sums of four, as of whole numbers in matmul_simd.h, but added in 16 bits as far as those hold
// them, which takes fewer instructions. kMost: the largest magnitude of a lane.
template <int kMost>
inline auto pair_up(P a, P b) {
  if constexpr (2 * kMost <= kPartialMax)
    return P{_mm256_add_epi16(_mm256_unpacklo_epi16(a.v, b.v), _mm256_unpackhi_epi16(a.v, b.v))};
  else
    return pair_up<kMost>(widen(a), widen(b));
}
// Neighbours become those of the same vector; each 32-bit lane is the sum of two.
inline __m256i add_neighbours(__m256i v, __m256i order) {
  return _mm256_madd_epi16(_mm256_shuffle_epi8(v, order), _mm256_set1_epi16(1));
}
template <int kMost>
inline I four_up(P a, P b) {
  if constexpr (4 * kMost <= kPartialMax) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    const __m256i four =
        _mm256_add_epi16(_mm256_unpacklo_epi32(a.v, b.v), _mm256_unpackhi_epi32(a.v, b.v));
    return {add_neighbours(four, order)};
  } else {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    const __m256i c = add_neighbours(a.v, order), d = add_neighbours(b.v, order);
    return {_mm256_add_epi32(_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d))};
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
