// Products of many tokens with K-quants whose group scales stay whole numbers, in registers of 512
// bits: a token's sums of sixteen rows are one register. To be included after
// avx512/matmul_tiles.h.
#pragma once

#include "kernels/avx512/matmul_tiles.h"
#include "kernels/generic/matmul_blocks.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

// Of one block, in each lane that row's sums, under its whole scales.
template <class Coding, int kTokens>
[[gnu::always_inline]] inline void add_block(const BlockPanel& block, const uint8_t* codes,
                                             const uint8_t* values, size_t stride, __m512i* whole) {
  constexpr size_t kSteps = kBlock / Coding::kParts / 4;
#pragma GCC unroll 1
  for (size_t g = 0; g < Coding::kParts; ++g) {
    __m512i sums[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (size_t step = g * kSteps; step < (g + 1) * kSteps; step += 4)
      add_four_steps<false, kTokens>(codes + step * kStepBytes, values + step * 4, stride, sums);
    const __m512i scales = _mm512_srai_epi32(_mm512_load_si512(block.scales[g]), 16);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      whole[t] = _mm512_add_epi32(whole[t], _mm512_mullo_epi32(sums[t], scales));
  }
}

// A token's part of what minima, or offsets, take away.
template <class Coding>
[[gnu::always_inline]] inline __m512i weigh_sums(const BlockPanel& block, const uint8_t* sums) {
  __m512i weighted = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (size_t pair = 0; pair < Coding::kParts / 2; ++pair)
    weighted = _mm512_dpwssd_epi32(weighted, _mm512_load_si512(block.weights[pair]),
                                   splat_word(sums + pair * 4));
  return weighted;
}

// The same arithmetic as multiply_block_tile().
template <class Coding, int kTokens>
void sixteen_rows_of_blocks(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  const size_t stride = m.prepared_stride;
  const uint8_t* tokens = m.prepared + t0 * stride;
  __m512 y[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) y[t] = _mm512_setzero_ps();
  for (size_t b = 0; b < m.groups; ++b) {
    if (t0 == 0) fetch_next_panel(m, first, b);
    const BlockPanel& block = reinterpret_cast<const BlockPanel*>(panel.parameters)[b];
    __m512i whole[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) whole[t] = _mm512_setzero_si512();
    add_block<Coding, kTokens>(block, panel.codes + b * (kBlock / 4) * kStepBytes,
                               tokens + b * kBlock, stride, whole);
    const __m512 steps = _mm512_load_ps(block.steps), min_steps = _mm512_load_ps(block.min_steps);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const uint8_t* token = tokens + static_cast<size_t>(t) * stride;
      const __m512i weighted = weigh_sums<Coding>(block, token + m.sums_at + b * kBlockSums * 2);
      float one;
      memcpy(&one, token + m.scales_at + b * 4, 4);
      const __m512 scale = _mm512_set1_ps(one);
      if constexpr (Coding::kBias) {
        y[t] = _mm512_fmadd_ps(_mm512_mul_ps(steps, scale), _mm512_cvtepi32_ps(whole[t]), y[t]);
        y[t] = _mm512_fmadd_ps(
            _mm512_mul_ps(min_steps, scale),
            _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_setzero_si512(), weighted)), y[t]);
      } else {
        const __m512i offset = _mm512_mullo_epi32(weighted, _mm512_set1_epi32(Coding::kOffset));
        y[t] = _mm512_fmadd_ps(_mm512_mul_ps(steps, scale),
                               _mm512_cvtepi32_ps(_mm512_sub_epi32(whole[t], offset)), y[t]);
      }
    }
  }
  store_sixteen<kTokens>(m, first, t0, y);
}

template <class Coding>
struct Tiles<ByBlocks<Coding>> {
  static void multiply(const RawMatmul& m, const Panel& panel, size_t row) {
    even_tiles<Tile, 8>(m, panel, row);
  }

 private:
  struct Tile {
    template <int kTokens>
    static void multiply(const RawMatmul& m, const Panel& panel, size_t row, size_t t) {
      sixteen_rows_of_blocks<Coding, kTokens>(m, panel, row, t);
    }
  };
};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
