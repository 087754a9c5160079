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

inline P no_partial() { return {_mm256_setzero_si256()}; }
inline P multiply_add(P p, C c, S s) {
  return {_mm256_add_epi16(p.v, _mm256_maddubs_epi16(c.v, s.v))};
}
inline I widen(P p) { return {_mm256_madd_epi16(p.v, _mm256_set1_epi16(1))}; }

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
