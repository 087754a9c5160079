// Sums of byte products with the dot-product extension. Its products are of signed bytes, which
// codes to 63 are.
#pragma once

#include "kernels/neon/matmul_simd.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using P = I;
constexpr int kPartialMax = 1 << 30;
constexpr int kScaledMax = kPartialMax;

inline P no_partial() { return no_sum(); }
inline P multiply_add(P p, C c, S s) {
  return {vdotq_s32(p.a, vreinterpretq_s8_u8(c.a), s.a),
          vdotq_s32(p.b, vreinterpretq_s8_u8(c.b), s.b)};
}
inline I widen(P p) { return p; }

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
