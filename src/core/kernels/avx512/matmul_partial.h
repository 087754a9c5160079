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
// Partial sums that fit into 16 bits times a scale: the products of both halves of a lane, of which
// the upper meets 0. Multiplying whole lanes takes several times as long.
constexpr int kScaledMax = 32767;
template <int kPlace>
inline I widen_scaled(P p, W w) {
  constexpr int kUpperZero = static_cast<int>(0x80800000u);
  const __m256i scale = _mm256_shuffle_epi8(
      w.v, _mm256_set1_epi32(kUpperZero + (2 * kPlace + 1) * 0x100 + 2 * kPlace));
  return {_mm256_madd_epi16(p.v, scale)};
}
inline I widen_scaled(P p, const int16_t* scales) {
  const __m256i twice = load_256(reinterpret_cast<const uint8_t*>(scales));
  return {_mm256_madd_epi16(p.v, _mm256_srli_epi32(twice, 16))};
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
