// Codes of 3, 5 and 6 bits by AVX-512's byte instructions (VBMI): a permutation brings the bytes of
// eight codes into each 64-bit lane, and a shift by bits picks every code out of its lane.
#pragma once

#include "kernels/avx2/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// In order.
template <int kBits>
inline C stream(const uint8_t* p) {
  alignas(32) static constexpr struct Tables {
    uint8_t bytes[32], shifts[32];
    constexpr Tables() : bytes(), shifts() {
      for (int i = 0; i < 32; ++i) {
        bytes[i] = static_cast<uint8_t>(i / 8 * kBits + i % 8);
        shifts[i] = static_cast<uint8_t>(i % 8 * kBits);
      }
    }
  } kTables;
  const __m256i lanes = _mm256_permutexvar_epi8(load_256(kTables.bytes), load_256(p));
  const __m256i codes = _mm256_multishift_epi64_epi8(load_256(kTables.shifts), lanes);
  return {_mm256_and_si256(codes, _mm256_set1_epi8((1 << kBits) - 1))};
}
// Even and odd ones apart, in 16 bits.
template <int kBits>
inline void stream_wide(const uint8_t* p, S& even, S& odd) {
  const __m256i codes = stream<kBits>(p).v;
  even = {_mm256_and_si256(codes, _mm256_set1_epi16(0xff))};
  odd = {_mm256_srli_epi16(codes, 8)};
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
