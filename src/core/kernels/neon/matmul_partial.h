// Sums of byte products without the dot-product extension: products of 16 bits, added in pairs
// (codes to 63 stay exact) and those pairs again into 32 bits.
#pragma once

#include "kernels/neon/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using P = I;
constexpr int kPartialMax = 1 << 30;
constexpr int kScaledMax = kPartialMax;

inline P no_partial() { return no_sum(); }
inline int32x4_t add_products(int32x4_t sum, uint8x16_t c, int8x16_t s) {
  const int8x16_t q = vreinterpretq_s8_u8(c);
  const int16x8_t low = vmull_s8(vget_low_s8(q), vget_low_s8(s));
  return vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(q, s)));
}
inline P multiply_add(P p, C c, S s) {
  return {add_products(p.a, c.a, s.a), add_products(p.b, c.b, s.b)};
}
inline I widen(P p) { return p; }

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
