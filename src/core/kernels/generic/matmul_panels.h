// Products of many tokens with coded weights, through unpacked panels of sixteen rows that all
// tokens share: the same whole numbers, and groups folded in the same order, as for few tokens.
#pragma once

#include "kernels/generic/matmul_few.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kPanelRows = 16;
constexpr size_t kPanelTokens = 4;             // from here on a panel pays
constexpr size_t kStepBytes = 4 * kPanelRows;  // of a panel: four codes of each row

// Sixteen rows unpacked, in steps of four codes of each, and their parameters by group.
struct Panel {
  uint8_t* codes;     // [chunk][8 steps][16 rows][4]
  float* parameters;  // [group][2: scales, biases][16 rows]
};

inline Panel panel_at(const RawMatmul& m) {
  const size_t chunks = (m.columns + kChunk - 1) / kChunk;
  return {m.scratch, reinterpret_cast<float*>(m.scratch + chunks * 8 * kStepBytes)};
}

// Asks for a group's share of the sixteen rows behind those from `first` on, while these are
// multiplied: without it, filling a panel waits for memory as long as a dozen tokens take to
// multiply (measured: bench/log.tsv). Behind the last rows there is something else, often what
// comes next. Inlined and by the compiler's own function: g++ takes a function that only asks for
// memory to do nothing, and drops calls of it.
[[gnu::always_inline]] inline void fetch_next_panel(const RawMatmul& m, size_t first, size_t g) {
  const size_t share = kPanelRows * m.weight_stride / m.groups;
  const uint8_t* weight = m.weight + (first + kPanelRows) * m.weight_stride + g * share;
  for (size_t at = 0; at < share; at += kLine) __builtin_prefetch(weight + at);
  if (m.scale_stride == 0) return;
  const size_t scale = (first + kPanelRows) * m.scale_stride + g * kPanelRows * 2;
  __builtin_prefetch(m.scales + scale);
  __builtin_prefetch(m.biases + scale);
}

// Adds steps [from, to) of the panel to sums, which must not overflow P. widened: makes whole
// numbers of the partial sums of either eight rows.
template <int kTokens, class Widen>
inline void add_steps(const uint8_t* codes_at, const uint8_t* values, size_t stride, size_t from,
                      size_t to, Widen widened, I (*sums)[2]) {
  P partial[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) partial[t][0] = partial[t][1] = no_partial();
  for (size_t step = from; step < to; ++step) {
    const C a = codes(codes_at + step * kStepBytes), b = codes(codes_at + step * kStepBytes + 32);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const S x = splat_values(values + static_cast<size_t>(t) * stride + step * 4);
      partial[t][0] = multiply_add(partial[t][0], a, x);
      partial[t][1] = multiply_add(partial[t][1], b, x);
      in_order(partial[t][0], partial[t][1]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = sums[t][0] + widened(partial[t][0], 0);
    sums[t][1] = sums[t][1] + widened(partial[t][1], 1);
  }
}

// The same with activations of 16 bits: each step of a chunk takes two pairs, 32 bytes apart.
template <int kTokens>
inline void add_wide_steps(const uint8_t* codes_at, const uint8_t* values, size_t stride,
                           size_t from, size_t to, I (*sums)[2]) {
  I partial[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) partial[t][0] = partial[t][1] = no_sum();
  for (size_t step = from; step < to; ++step) {
    const C a = codes(codes_at + step * kStepBytes), b = codes(codes_at + step * kStepBytes + 32);
    const uint8_t* x = values + step / 8 * 2 * kChunk + step % 8 * 4;
    const S a_even = even_codes(a), a_odd = odd_codes(a);
    const S b_even = even_codes(b), b_odd = odd_codes(b);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const S even = splat_values(x + static_cast<size_t>(t) * stride);
      const S odd = splat_values(x + static_cast<size_t>(t) * stride + kChunk);
      partial[t][0] = partial[t][0] + multiply_wide(a_even, even) + multiply_wide(a_odd, odd);
      partial[t][1] = partial[t][1] + multiply_wide(b_even, even) + multiply_wide(b_odd, odd);
      in_order(partial[t][0], partial[t][1]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = sums[t][0] + partial[t][0];
    sums[t][1] = sums[t][1] + partial[t][1];
  }
}

inline void store_rows(const RawMatmul& m, size_t token, size_t row, V y) {
  float* out = m.y + token * m.y_stride + row;
  if (row + 8 <= m.rows) return store_v(out, y);
  float lanes[8];
  store_v(lanes, y);
  for (size_t i = 0; row + i < m.rows; ++i) out[i] = lanes[i];
}

template <int kTokens>
inline void store_tile(const RawMatmul& m, size_t first, size_t t0, const V (*y)[2]) {
  for (int t = 0; t < kTokens; ++t)
    for (size_t part = 0; part < 2; ++part)
      if (first + part * 8 < m.rows)
        store_rows(m, t0 + static_cast<size_t>(t), first + part * 8, y[t][part]);
}

template <class Coding, bool kWide, int kTokens>
void multiply_tile(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  const uint8_t* tokens = m.prepared + t0 * m.prepared_stride;
  const size_t steps = static_cast<size_t>(m.group) / 4;
  constexpr auto kRun = static_cast<size_t>(run_of<Coding>());
  const auto widened = [](P p, int) { return widen(p); };
  V y[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) y[t][0] = y[t][1] = splat_v(0);
  for (size_t g = 0; g < m.groups; ++g) {
    I sums[kTokens][2];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = no_sum();
    const size_t end = (g + 1) * steps;
    if constexpr (kWide)
      add_wide_steps<kTokens>(panel.codes, tokens, m.prepared_stride, g * steps, end, sums);
    else
      for (size_t step = g * steps; step < end; step += kRun)
        add_steps<kTokens>(panel.codes, tokens, m.prepared_stride, step,
                           step + kRun < end ? step + kRun : end, widened, sums);
    if (t0 == 0) fetch_next_panel(m, first, g);
    const float* parameters = panel.parameters + g * 2 * kPanelRows;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const TokenGroup values =
          token_group(m, tokens + static_cast<size_t>(t) * m.prepared_stride, g);
      for (int part = 0; part < 2; ++part)
        y[t][part] = fold<Coding::kBias>(y[t][part], sums[t][part], parameters + part * 8,
                                         parameters + kPanelRows + part * 8, values);
    }
  }
  store_tile<kTokens>(m, first, t0, y);
}

// Parameters by group, folded as for few tokens.
template <class Coding, bool kWide>
struct ByGroups {
  static constexpr size_t kTokensMost = kWide ? 4 : 6;
  static void fill(const RawMatmul& m, const Rows& rows, size_t part, const Panel& panel) {
    Parameters parameters;
    for (size_t g0 = 0; g0 < m.groups; g0 += 8) {
      const int groups = m.groups - g0 < 8 ? static_cast<int>(m.groups - g0) : 8;
      Coding::parameters(m, rows, g0, groups, parameters);
      for (int g = 0; g < groups; ++g) {
        float* to = panel.parameters + (g0 + static_cast<size_t>(g)) * 2 * kPanelRows + part * 8;
        store_v(to, load_v(parameters.scales[g]));
        if (Coding::kBias) store_v(to + kPanelRows, load_v(parameters.biases[g]));
      }
    }
  }
  template <int kTokens>
  static void multiply(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
    multiply_tile<Coding, kWide, kTokens>(m, panel, first, t0);
  }
};

template <class Coding>
void fill_eight(const RawMatmul& m, const Rows& rows, size_t part, const Panel& panel) {
  const size_t chunks = (m.columns + kChunk - 1) / kChunk;
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    C c[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) c[i] = Coding::chunk(rows.weight[i], chunk);
    store_transposed(c, panel.codes + chunk * 8 * kStepBytes + part * 32, kStepBytes);
  }
}

// The codes of a panel's rows, eight from each of these. Sets with wider registers specialise it.
template <class Coding>
struct FillCodes {
  static void fill(const RawMatmul& m, const Rows& first, const Rows& last, const Panel& panel) {
    fill_eight<Coding>(m, first, 0, panel);
    fill_eight<Coding>(m, last, 1, panel);
  }
};

// Products of a panel with all tokens. Way: ByGroups or ByBlocks, which say how parameters lie in
// the panel and enter the sums. Sets with wider registers specialise it.
template <class Way>
struct Tiles {
  static void multiply(const RawMatmul& m, const Panel& panel, size_t row) {
    size_t t = 0;
    if constexpr (Way::kTokensMost >= 6)
      for (; t + 6 <= m.tokens; t += 6) Way::template multiply<6>(m, panel, row, t);
    for (; t + 4 <= m.tokens; t += 4) Way::template multiply<4>(m, panel, row, t);
    for (; t + 2 <= m.tokens; t += 2) Way::template multiply<2>(m, panel, row, t);
    if (t < m.tokens) Way::template multiply<1>(m, panel, row, t);
  }
};

template <class Coding, class Way>
void many_tokens(const RawMatmul& m) {
  const Panel panel = panel_at(m);
  for (size_t row = 0; row < m.rows; row += kPanelRows) {
    const Rows first = rows_at(m, row, 1), last = rows_at(m, row + 8, 1);
    FillCodes<Coding>::fill(m, first, last, panel);
    Way::fill(m, first, 0, panel);
    Way::fill(m, last, 1, panel);
    Tiles<Way>::multiply(m, panel, row);
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
