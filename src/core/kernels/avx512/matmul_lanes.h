// What products of many tokens are made of, as in generic/matmul_lanes.h, in registers of 512 bits.
// To be included after the primitives.
#pragma once

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
