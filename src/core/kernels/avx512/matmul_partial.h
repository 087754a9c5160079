// Sums of byte products in eight 32-bit lanes: vpdpbusd. In registers of 256 bits, which suffice to
// keep up with memory.
#pragma once

#include "kernels/avx2/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct P {
  __m256i v;
};
constexpr int kPartialMax = 1 << 30;

inline P no_partial() { return {_mm256_setzero_si256()}; }
inline P multiply_add(P p, C c, S s) { return {_mm256_dpbusd_epi32(p.v, c.v, s.v)}; }
inline void in_order(P& a, P& b) { asm volatile("" : "+x"(a.v), "+x"(b.v)); }
inline I widen(P p) { return {p.v}; }
// Of 32-bit lanes with the scale in their upper half.
inline I multiply_upper(P p, __m256i scales) {
  return {_mm256_mullo_epi32(p.v, _mm256_srai_epi32(scales, 16))};
}
template <int kPlace>
inline I widen_scaled(P p, W w) {
  return multiply_upper(
      p, _mm256_shuffle_epi8(w.v, _mm256_set1_epi32(kPlace * 0x2020000 + 0x1008080)));
}
inline I widen_scaled(P p, const int16_t* scales) {
  return multiply_upper(p, load_256(reinterpret_cast<const uint8_t*>(scales)));
}

// Sums of four, as of whole numbers in matmul_simd.h, but by way of 16 bits where those hold them,
// which takes fewer instructions. kMost: the largest magnitude of the sum of two products of each
// chunk; a lane has four.
struct Pairs {
  __m256i v;
};
inline __m256i add_neighbours(__m256i a, __m256i b) {
  return _mm256_madd_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16(1));
}
template <int kMost>
inline auto pair_up(P a, P b) {
  if constexpr (2 * kMost <= 32767)
    return Pairs{add_neighbours(a.v, b.v)};
  else
    return pair_up<kMost>(widen(a), widen(b));
}
template <int kMost>
inline I four_up(Pairs a, Pairs b) {
  if constexpr (4 * kMost <= 32767)
    return {add_neighbours(a.v, b.v)};
  else
    return {_mm256_hadd_epi32(a.v, b.v)};
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
