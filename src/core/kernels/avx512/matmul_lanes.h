// What products of many tokens are made of, as in generic/matmul_lanes.h, in registers of 512 bits.
// To be included after the primitives.
#pragma once

#include "kernels/generic/matmul_codings.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

struct L {
  __m512 v;
};
constexpr int kParts = 1;
constexpr int kFloatRows = 4, kFloatTokens = 6;

inline L no_lanes() { return {_mm512_setzero_ps()}; }
inline L load_lanes(Element element, const uint8_t* p) {
  switch (element) {
    case kElementF32: return {_mm512_loadu_ps(p)};
    case kElementF16: return {_mm512_cvtph_ps(load_256(p))};
    case kElementBF16: break;
  }
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}
inline L splat_lanes(float value) { return {_mm512_set1_ps(value)}; }
inline L operator*(L a, L b) { return {_mm512_mul_ps(a.v, b.v)}; }
// E4M3, and where none is a NaN a 256th of that.
inline L e4m3_lanes(const uint8_t* p) {
  const __m512 low = _mm512_castps256_ps512(e4m3_to_floats(word_64(p)).v);
  return {_mm512_insertf32x8(low, e4m3_to_floats(word_64(p + 8)).v, 1)};
}
inline L small_e4m3_lanes(const uint8_t* p) {
  const __m256i bits = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load_128(p)), 7);
  return {_mm512_cvtph_ps(_mm256_and_si256(bits, _mm256_set1_epi16(~0x4000)))};
}
inline L add_product(L sum, L weights, L values) {
  return {_mm512_fmadd_ps(weights.v, values.v, sum.v)};
}
inline float fold_parts(const L* parts) {
  return fold_lanes({_mm512_castps512_ps256(parts->v)}, {_mm512_extractf32x8_ps(parts->v, 1)});
}

template <size_t kCount>
struct WideStep {
  static constexpr size_t kProducts = kCount;
  using Sum = __m512i;
  using Weights = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Weights weights(const uint8_t* p) { return _mm512_loadu_si512(p); }
};
struct ByteStep : WideStep<64> {
  static Sum add(Sum sum, Weights w, const uint8_t* p) {
    return _mm512_dpbusd_epi32(sum, w, weights(p));
  }
};
struct WordStep : WideStep<32> {
  static Sum add(Sum sum, Weights w, const uint8_t* p) {
    return _mm512_dpwssd_epi32(sum, w, weights(p));
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
