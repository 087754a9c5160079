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

// The partial sums are whole numbers already.
template <int kMost>
inline I pair_up(P a, P b) {
  return pair_up<kMost>(widen(a), widen(b));
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
