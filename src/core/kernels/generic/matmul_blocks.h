// Products with K-quants whose group scales stay whole numbers: activations share one scale in a
// block of 256, so that everything within a block adds up exactly, for few tokens and for many.
#pragma once

#include "kernels/generic/matmul_panels.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr int kBlock = 256;
constexpr size_t kBlockSums = 16;  // of activations, for one block

// Where a group's sum lies: of sixteen groups the even ones come first.
inline size_t place_of(size_t groups, size_t group) {
  return groups == 16 ? group % 2 * 8 + group / 2 : group;
}

// ---- few tokens ----

// Lane r: the sum of vector r.
[[gnu::always_inline]] inline I sums_of_rows(const I* v) {
  constexpr int kMost = 1 << 30;  // never in 16 bits
  I low, high;
  part_halves(four_up<kMost>(pair_up<kMost>(v[0], v[1]), pair_up<kMost>(v[2], v[3])),
              four_up<kMost>(pair_up<kMost>(v[4], v[5]), pair_up<kMost>(v[6], v[7])), low, high);
  return low + high;
}

// One row's block. whole: its products under whole scales; weighted: the sums of activations that
// its minima take, or offsets already took from whole.
template <class Coding, int... kPlaces>
[[gnu::always_inline]] inline void dot_block(const uint8_t* block, const uint8_t* values, S sums,
                                             I& whole, I& weighted) {
  const W scales = Coding::whole_scales(block);
  I sum = no_sum();
  ((sum = sum + widen_scaled<kPlaces>(dot_partial<Coding, 1>(block, kPlaces, values), scales),
    in_order(sum)),
   ...);
  whole = sum;
  if constexpr (Coding::kBias) {
    weighted = weigh(Coding::whole_mins(block), sums);
  } else {
    whole = whole - weigh(scales, sums) * splat_sum(Coding::kOffset);
  }
}

// Eight rows, one token: blocks of 256 whose scales stay whole numbers.
template <class Coding>
V eight_rows_of_blocks(const RawMatmul& m, const Rows& rows, size_t t) {
  const uint8_t* token = m.prepared + t * m.prepared_stride;
  V y = splat_v(0);
  for (size_t b = 0; b < m.groups; ++b) {
    const S sums = load_values(token + m.sums_at + b * kBlockSums * 2);
    I whole[8], weighted[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      fetch_row(rows.weight[i], b * Coding::kBytes, Coding::kBytes);
      dot_block<Coding, 0, 1, 2, 3, 4, 5, 6, 7>(rows.weight[i] + b * Coding::kBytes,
                                                token + b * kBlock, sums, whole[i], weighted[i]);
    }
    float scale;
    memcpy(&scale, token + m.scales_at + b * 4, 4);
    const size_t at = b * Coding::kBytes + Coding::kStepAt;
    if constexpr (Coding::kBias) {
      V steps, min_steps;
      two_halves_of(rows.weight, at, steps, min_steps);
      y = fma_v(steps * splat_v(scale), to_floats(sums_of_rows(whole)), y);
      y = fma_v(min_steps * splat_v(scale), to_floats(no_sum() - sums_of_rows(weighted)), y);
    } else {
      y = fma_v(halves_of(rows.weight, at) * splat_v(scale), to_floats(sums_of_rows(whole)), y);
    }
  }
  return y;
}

// What is called; sets with wider registers specialise it.
template <class Coding>
struct Blocks {
  static V multiply(const RawMatmul& m, const Rows& rows, size_t t) {
    return eight_rows_of_blocks<Coding>(m, rows, t);
  }
};

// ---- many tokens ----

// Of one block, instead of parameters by group. Scales lie twice in each lane; weights, which are
// minima or scales, in pairs as the sums of activations do.
struct BlockPanel {
  float steps[kPanelRows], min_steps[kPanelRows];
  int16_t scales[16][kPanelRows][2];
  int16_t weights[kBlockSums / 2][kPanelRows][2];
};
static_assert(sizeof(BlockPanel) == kBlockPanelBytes);

inline int16_t byte_of(uint64_t bytes, size_t index) {
  return static_cast<int8_t>(bytes >> 8 * index);
}

template <class Coding>
void fill_block(const Rows& rows, size_t b, size_t part, BlockPanel& out) {
  const size_t at = b * Coding::kBytes + Coding::kStepAt;
  V steps, min_steps = splat_v(0);
  if constexpr (Coding::kBias)
    two_halves_of(rows.weight, at, steps, min_steps);
  else
    steps = halves_of(rows.weight, at);
  store_v(out.steps + part * 8, steps);
  store_v(out.min_steps + part * 8, min_steps);
  for (size_t i = 0; i < 8; ++i) {
    const uint8_t* block = rows.weight[i] + b * Coding::kBytes;
    const size_t row = part * 8 + i;
    for (size_t eighth = 0; eighth < Coding::kParts / 8; ++eighth) {
      const uint64_t scales = Coding::scale_bytes(block, eighth);
      uint64_t weights = scales;
      if constexpr (Coding::kBias) weights = Coding::min_bytes(block, eighth);
      for (size_t g = 0; g < 8; ++g) {
        const size_t group = eighth * 8 + g;
        const size_t place = place_of(Coding::kParts, group);
        int16_t* scale = out.scales[group][row];
        scale[0] = scale[1] = byte_of(scales, g);
        out.weights[place / 2][row][place % 2] = byte_of(weights, g);
      }
    }
  }
}

inline S weights_at(const int16_t* pairs) {
  return load_values(reinterpret_cast<const uint8_t*>(pairs));
}

// Steps of four products whose sums, in a lane of P, may be multiplied by a scale.
template <class Coding>
constexpr size_t scaled_run() {
  constexpr int kProducts = kPartialMax == 32767 ? 2 : 4;  // of a step in a lane
  return static_cast<size_t>(kScaledMax / (kProducts * 127 * Coding::kCodeMax));
}

// Blocks of 256 whose scales stay whole numbers.
template <class Coding, int kTokens>
void multiply_block_tile(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  const uint8_t* tokens = m.prepared + t0 * m.prepared_stride;
  constexpr size_t kSteps = kBlock / Coding::kParts / 4;
  constexpr size_t kRun = scaled_run<Coding>() < kSteps ? scaled_run<Coding>() : kSteps;
  V y[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) y[t][0] = y[t][1] = splat_v(0);
  for (size_t b = 0; b < m.groups; ++b) {
    if (t0 == 0) fetch_next_panel(m, first, b);
    const BlockPanel& block = reinterpret_cast<const BlockPanel*>(panel.parameters)[b];
    I whole[kTokens][2];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) whole[t][0] = whole[t][1] = no_sum();
    for (size_t g = 0; g < Coding::kParts; ++g) {
      const auto scaled = [&](P p, int part) { return widen_scaled(p, block.scales[g][part * 8]); };
      const size_t begin = (b * Coding::kParts + g) * kSteps;
      for (size_t step = begin; step < begin + kSteps; step += kRun)
        add_steps<kTokens>(panel.codes, tokens, m.prepared_stride, step, step + kRun, scaled,
                           whole);
    }
    for (int t = 0; t < kTokens; ++t) {
      const uint8_t* token = tokens + static_cast<size_t>(t) * m.prepared_stride;
      const uint8_t* sums = token + m.sums_at + b * kBlockSums * 2;
      float scale;
      memcpy(&scale, token + m.scales_at + b * 4, 4);
      for (int part = 0; part < 2; ++part) {
        I weighted = no_sum();
        for (size_t pair = 0; pair < Coding::kParts / 2; ++pair)
          weighted = weighted + multiply_wide(weights_at(block.weights[pair][part * 8]),
                                              splat_values(sums + pair * 4));
        I products = whole[t][part];
        if constexpr (!Coding::kBias) products = products - weighted * splat_sum(Coding::kOffset);
        V& out = y[t][part];
        out = fma_v(load_v(block.steps + part * 8) * splat_v(scale), to_floats(products), out);
        if constexpr (Coding::kBias)
          out = fma_v(load_v(block.min_steps + part * 8) * splat_v(scale),
                      to_floats(no_sum() - weighted), out);
      }
    }
  }
  store_tile<kTokens>(m, first, t0, y);
}

template <class Coding>
struct ByBlocks {
  static constexpr size_t kTokensMost = 6;
  static void fill(const RawMatmul& m, const Rows& rows, size_t part, const Panel& panel) {
    auto* blocks = reinterpret_cast<BlockPanel*>(panel.parameters);
    for (size_t b = 0; b < m.groups; ++b) fill_block<Coding>(rows, b, part, blocks[b]);
  }
  template <int kTokens>
  static void multiply(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
    multiply_block_tile<Coding, kTokens>(m, panel, first, t0);
  }
};

// ---- activations ----

inline void store_block_sums(const RawPrepare& p, size_t block, const int32_t* whole) {
  const int groups = kBlock / p.sums_of;
  for (int g = 0; g < groups; ++g) {
    int32_t sum = 0;
    for (int i = 0; i < p.sums_of; ++i) sum += whole[g * p.sums_of + i];
    const auto narrow = static_cast<int16_t>(sum);
    const size_t place = place_of(static_cast<size_t>(groups), static_cast<size_t>(g));
    memcpy(p.sums + (block * kBlockSums + place) * 2, &narrow, 2);
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
