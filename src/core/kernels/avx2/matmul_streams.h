// Codes of 3, 5 and 6 bits, which lie across bytes, without instructions made for it. Included
// after the primitives.
#pragma once

#include "kernels/avx2/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Codes of 3, 5 or 6 bits. Each 16-bit lane takes the two bytes that hold a pair of codes, and a
// multiplication moves the pair to the lane's upper end.
template <int kBits>
inline __m256i pairs_up(const uint8_t* p) {
  alignas(32) static constexpr struct Tables {
    uint8_t bytes[32];
    uint16_t factors[16];
    constexpr Tables() : bytes(), factors() {
      for (int i = 0; i < 16; ++i) {
        const int bit = 2 * kBits * (i % 8);
        bytes[2 * i] = static_cast<uint8_t>(bit / 8);
        bytes[2 * i + 1] = static_cast<uint8_t>(bit / 8 + 1);
        factors[i] = static_cast<uint16_t>(1 << (16 - 2 * kBits - bit % 8));
      }
    }
  } kTables;
  const __m256i windows =
      _mm256_shuffle_epi8(load_halves(p, p + 2 * kBits), load_256(kTables.bytes));
  return _mm256_mullo_epi16(windows, load_256(reinterpret_cast<const uint8_t*>(kTables.factors)));
}
template <int kBits>
inline __m256i even_of_pairs(__m256i pairs) {
  return _mm256_and_si256(_mm256_srli_epi16(pairs, 16 - 2 * kBits),
                          _mm256_set1_epi16((1 << kBits) - 1));
}
// In order.
template <int kBits>
inline C stream(const uint8_t* p) {
  const __m256i pairs = pairs_up<kBits>(p);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(pairs, 8 - kBits),
                                       _mm256_set1_epi16(((1 << kBits) - 1) << 8));
  return {_mm256_or_si256(even_of_pairs<kBits>(pairs), odd)};
}
// Even and odd ones apart, in 16 bits.
template <int kBits>
inline void stream_wide(const uint8_t* p, S& even, S& odd) {
  const __m256i pairs = pairs_up<kBits>(p);
  even = {even_of_pairs<kBits>(pairs)};
  odd = {_mm256_srli_epi16(pairs, 16 - kBits)};
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
