// What products of many tokens are made of where a set has no wider registers for them. To be
// included after the primitives and P.
#pragma once

#include "kernels/generic/matmul_codings.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// ---- of floats: the sixteen lanes along a row as two vectors of eight, and the tile whose sums
// fill the registers there are ----

using L = V;
constexpr int kParts = 2;
constexpr int kFloatRows = 2, kFloatTokens = 3;

inline L no_lanes() { return splat_v(0); }
inline L load_lanes(Element element, const uint8_t* p) { return load_8(element, p); }
inline L splat_lanes(float value) { return splat_v(value); }
// E4M3, and where none is a NaN a 256th of that.
inline L e4m3_lanes(const uint8_t* p) { return e4m3_to_floats(word_64(p)); }
inline L small_e4m3_lanes(const uint8_t* p) { return small_e4m3_to_floats(word_64(p)); }
inline L add_product(L sum, L weights, L values) { return fma_v(weights, values, sum); }
inline float fold_parts(const L* parts) { return fold_lanes(parts[0], parts[1]); }

// ---- one step of sums of whole numbers: kProducts of them, operands from p ----

struct ByteStep {
  static constexpr size_t kProducts = 32;
  using Sum = P;
  using Weights = C;
  static Sum zero() { return no_partial(); }
  static Weights weights(const uint8_t* p) { return codes(p); }
  static Sum add(Sum sum, Weights w, const uint8_t* p) {
    return multiply_add(sum, w, load_values(p));
  }
};
struct WordStep {
  static constexpr size_t kProducts = 16;
  using Sum = I;
  using Weights = S;
  static Sum zero() { return no_sum(); }
  static Weights weights(const uint8_t* p) { return load_values(p); }
  static Sum add(Sum sum, Weights w, const uint8_t* p) {
    return sum + multiply_wide(w, load_values(p));
  }
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
