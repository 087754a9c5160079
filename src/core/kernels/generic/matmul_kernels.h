// Products with coded weights: straight from the packing for few tokens, and through unpacked
// panels of sixteen rows for many. Both add whole numbers within a group and fold groups in order
// into one f32 lane per row, so that they give the same bits. To be included after the primitives
// and P.
#pragma once

#include "kernels/generic/matmul_codings.h"
#include "kernels/generic/matmul_floats.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kChunk = 32;  // codes unpacked together
constexpr size_t kPanelRows = 16;
constexpr size_t kPanelTokens = 4;             // from here on a panel pays
constexpr size_t kStepBytes = 4 * kPanelRows;  // of a panel: four codes of each row
constexpr int kBlock = 256;                    // of K-quants
constexpr size_t kBlockSums = 16;              // of activations, for one block

template <class Coding>
constexpr int run_of() {
  return kPartialMax / (2 * 127 * Coding::kCodeMax);
}

// What one token adds to a group's products.
struct TokenGroup {
  float scale;
  const uint8_t* sum;
};
inline TokenGroup token_group(const RawMatmul& m, const uint8_t* token, size_t g) {
  TokenGroup group;
  memcpy(&group.scale, token + m.scales_at + g * 4, 4);
  group.sum = token + m.sums_at + g * 4;
  return group;
}

template <bool kBias>
inline V fold(V y, I sum, const float* scales, const float* biases, const TokenGroup& token) {
  if constexpr (kBias) {
    float part;
    memcpy(&part, token.sum, 4);
    y = fma_v(load_v(scales) * splat_v(token.scale), to_floats(sum), y);
    return fma_v(load_v(biases), splat_v(part), y);
  } else {
    int32_t shift;
    memcpy(&shift, token.sum, 4);
    return fma_v(load_v(scales) * splat_v(token.scale), to_floats(sum - splat_sum(shift)), y);
  }
}

inline void store_rows(const RawMatmul& m, size_t token, size_t row, V y) {
  float* out = m.y + token * m.y_stride + row;
  if (row + 8 <= m.rows) return store_v(out, y);
  float lanes[8];
  store_v(lanes, y);
  for (size_t i = 0; row + i < m.rows; ++i) out[i] = lanes[i];
}

// ---- few tokens ----

// A chunk's codes of even and of odd places.
template <class Coding>
inline void wide_codes(const uint8_t* row, size_t chunk, S& even, S& odd) {
  if constexpr (requires { Coding::wide_chunk(row, chunk, even, odd); }) {
    Coding::wide_chunk(row, chunk, even, odd);
  } else {
    const C c = Coding::chunk(row, chunk);
    even = even_codes(c);
    odd = odd_codes(c);
  }
}

// Of kChunks consecutive chunks of one row; P must hold their products.
template <class Coding, int kChunks>
[[gnu::always_inline]] inline P dot_partial(const uint8_t* row, size_t chunk,
                                            const uint8_t* token) {
  P partial = no_partial();
#pragma GCC unroll 4
  for (int k = 0; k < kChunks; ++k) {
    const size_t index = chunk + static_cast<size_t>(k);
    partial = multiply_add(partial, Coding::chunk(row, index), load_values(token + index * kChunk));
  }
  return partial;
}

// The same where P does not hold them, or where activations have 16 bits.
template <class Coding, bool kWide, int kChunks>
[[gnu::always_inline]] inline I dot_whole(const uint8_t* row, size_t chunk, const uint8_t* token) {
  I sum = no_sum();
  if constexpr (kWide) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunks; ++k) {
      const size_t index = chunk + static_cast<size_t>(k);
      S even, odd;
      wide_codes<Coding>(row, index, even, odd);
      const uint8_t* values = token + index * 2 * kChunk;
      sum = sum + multiply_wide(even, load_values(values));
      sum = sum + multiply_wide(odd, load_values(values + kChunk));
    }
  } else {
    constexpr int kRun = run_of<Coding>();
    static_assert(kChunks % kRun == 0);
#pragma GCC unroll 4
    for (int k = 0; k < kChunks; k += kRun)
      sum = sum + widen(dot_partial<Coding, kRun>(row, chunk + static_cast<size_t>(k), token));
  }
  return sum;
}

template <class Coding, bool kWide>
constexpr bool kPaired = !kWide && requires(C& c) { Coding::chunk_pair(nullptr, 0, c, c); };

// The same as dot_partial from pairs of chunks, an even number of them: the first chunk of a pair
// adds to the lower half.
template <class Coding, int kChunks>
[[gnu::always_inline]] inline P dot_pairs(const uint8_t* row, size_t chunk, const uint8_t* token) {
  P partial = no_partial();
#pragma GCC unroll 2
  for (int k = 0; k < kChunks; k += 2) {
    const size_t index = chunk + static_cast<size_t>(k);
    const uint8_t* x = token + index * kChunk;
    C low, high;
    Coding::chunk_pair(row, index, low, high);
    partial = multiply_add(partial, low, load_values(x, x + kChunk));
    partial = multiply_add(partial, high, load_values(x + kChunk / 2, x + kChunk / 2 * 3));
  }
  return partial;
}

// Of one row: partial sums where those hold all chunks.
template <class Coding, bool kWide, int kChunks>
[[gnu::always_inline]] inline auto dot_row(const uint8_t* row, size_t chunk, const uint8_t* token) {
  if constexpr (kWide || run_of<Coding>() < kChunks)
    return dot_whole<Coding, kWide, kChunks>(row, chunk, token);
  else if constexpr (kPaired<Coding, kWide> && kChunks % 2 == 0)
    return dot_pairs<Coding, kChunks>(row, chunk, token);
  else
    return dot_partial<Coding, kChunks>(row, chunk, token);
}

// Of eight rows: lane r of low and high is that half of row r's products.
template <class Coding, bool kWide, int kChunks>
[[gnu::always_inline]] inline void dot_rows(const Rows& rows, size_t chunk, const uint8_t* token,
                                            I& low, I& high) {
  constexpr int kMost = 2 * 127 * Coding::kCodeMax * kChunks;  // in a lane of partial sums
  I four[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const uint8_t* const* w = rows.weight + 4 * i;
    const auto a = pair_up<kMost>(dot_row<Coding, kWide, kChunks>(w[0], chunk, token),
                                  dot_row<Coding, kWide, kChunks>(w[1], chunk, token));
    const auto b = pair_up<kMost>(dot_row<Coding, kWide, kChunks>(w[2], chunk, token),
                                  dot_row<Coding, kWide, kChunks>(w[3], chunk, token));
    four[i] = four_up<kMost>(a, b);
  }
  part_halves(four[0], four[1], low, high);
}

// Eight rows are eight streams through memory. Asks for what each reads next: the processor's own
// prefetchers follow long streams but not short rows, and scales are a trickle beside the codes.
constexpr size_t kAhead = 512;
constexpr size_t kScalesAhead = 192;
inline void fetch_weights(const Rows& rows, size_t from, size_t bytes) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    for (size_t at = 0; at < bytes; at += 64) prefetch(rows.weight[i] + from + at + kAhead);
}
inline void fetch_scales(const Rows& rows) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    prefetch(rows.scales[i] + kScalesAhead);
    prefetch(rows.biases[i] + kScalesAhead);
  }
}

// Eight rows, one token. kGroup: 16 to 128.
template <class Coding, bool kWide, int kGroup>
V multiply_rows(const RawMatmul& m, const Rows& rows, size_t t) {
  constexpr int kChunks = kGroup < 32 ? 1 : kGroup / 32;
  constexpr bool kPairOfGroups = kGroup == 32 && kPaired<Coding, kWide>;
  constexpr int kGroupsTogether = kGroup < 32 || kPairOfGroups ? 2 : 1;
  const uint8_t* token = m.prepared + t * m.prepared_stride;
  const size_t part = 8 * m.weight_stride / m.groups;  // of a row, for eight groups
  Parameters parameters;
  V y = splat_v(0);
  for (size_t g0 = 0; g0 < m.groups; g0 += 8) {
    const int groups = m.groups - g0 < 8 ? static_cast<int>(m.groups - g0) : 8;
    Coding::parameters(m, rows, g0, groups, parameters);
    fetch_weights(rows, g0 / 8 * part, part);
    for (int g = 0; g < groups; g += kGroupsTogether) {
      const size_t group = g0 + static_cast<size_t>(g);
      const size_t chunk = kGroup < 32 ? group / 2 : group * kChunks;
      const bool both = kGroupsTogether == 1 || g + 1 < groups;
      I low, high;
      if (kPairOfGroups && both)
        dot_rows<Coding, kWide, 2>(rows, chunk, token, low, high);
      else
        dot_rows<Coding, kWide, kChunks>(rows, chunk, token, low, high);
      if (kGroup >= 32 && !(kPairOfGroups && both)) low = low + high;
      y = fold<Coding::kBias>(y, low, parameters.scales[g], parameters.biases[g],
                              token_group(m, token, group));
      if (kGroupsTogether == 2 && both)
        y = fold<Coding::kBias>(y, high, parameters.scales[g + 1], parameters.biases[g + 1],
                                token_group(m, token, group + 1));
    }
  }
  return y;
}

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

// Blocks of 256 whose scales stay whole numbers.
template <class Coding>
V multiply_blocks(const RawMatmul& m, const Rows& rows, size_t t) {
  const uint8_t* token = m.prepared + t * m.prepared_stride;
  V y = splat_v(0);
  for (size_t b = 0; b < m.groups; ++b) {
    fetch_weights(rows, b * Coding::kBytes, Coding::kBytes);
    const S sums = load_values(token + m.sums_at + b * kBlockSums * 2);
    I whole[8], weighted[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      dot_block<Coding, 0, 1, 2, 3, 4, 5, 6, 7>(rows.weight[i] + b * Coding::kBytes,
                                                token + b * kBlock, sums, whole[i], weighted[i]);
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

// Eight rows by multiply_rows or multiply_blocks. They lie an eighth of all apart, so that each
// stream goes on from block to block.
template <V (*kMultiply)(const RawMatmul&, const Rows&, size_t)>
void few_tokens(const RawMatmul& m) {
  const size_t blocks = (m.rows + 7) / 8;
  for (size_t block = 0; block < blocks; ++block) {
    const Rows rows = rows_at(m, block, blocks);
    if (m.scale_stride > 0) fetch_scales(rows);
    for (size_t t = 0; t < m.tokens; ++t) {
      float lanes[8];
      store_v(lanes, kMultiply(m, rows, t));
      float* out = m.y + t * m.y_stride + block;
      for (size_t i = 0; i * blocks + block < m.rows && i < 8; ++i) out[i * blocks] = lanes[i];
    }
  }
}

// ---- many tokens ----

// Sixteen rows unpacked, in steps of four codes of each, and their parameters by group.
struct Panel {
  uint8_t* codes;     // [chunk][8 steps][16 rows][4]
  float* parameters;  // [group][2: scales, biases][16 rows]
};

inline Panel panel_at(const RawMatmul& m) {
  const size_t chunks = (m.columns + kChunk - 1) / kChunk;
  return {m.scratch, reinterpret_cast<float*>(m.scratch + chunks * 8 * kStepBytes)};
}

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
        const size_t place = Coding::kParts == 16 ? group % 2 * 8 + group / 2 : group;
        int16_t* scale = out.scales[group][row];
        scale[0] = scale[1] = byte_of(scales, g);
        out.weights[place / 2][row][place % 2] = byte_of(weights, g);
      }
    }
  }
}

template <class Coding, bool kBlocks>
void fill_panel(const RawMatmul& m, size_t first, const Panel& panel) {
  const size_t chunks = (m.columns + kChunk - 1) / kChunk;
  for (size_t part = 0; part < 2; ++part) {
    const Rows rows = rows_at(m, first + part * 8, 1);
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      C c[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) c[i] = Coding::chunk(rows.weight[i], chunk);
      store_transposed(c, panel.codes + chunk * 8 * kStepBytes + part * 32, kStepBytes);
    }
    if constexpr (kBlocks) {
      auto* blocks = reinterpret_cast<BlockPanel*>(panel.parameters);
      for (size_t b = 0; b < m.groups; ++b) fill_block<Coding>(rows, b, part, blocks[b]);
      continue;
    }
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

template <int kTokens>
inline void store_tile(const RawMatmul& m, size_t first, size_t t0, const V (*y)[2]) {
  for (int t = 0; t < kTokens; ++t)
    for (size_t part = 0; part < 2; ++part)
      if (first + part * 8 < m.rows)
        store_rows(m, t0 + static_cast<size_t>(t), first + part * 8, y[t][part]);
}

inline S weights_at(const int16_t* pairs) {
  return load_values(reinterpret_cast<const uint8_t*>(pairs));
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

// Blocks of 256 whose scales stay whole numbers.
template <class Coding, int kTokens>
void multiply_block_tile(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  const uint8_t* tokens = m.prepared + t0 * m.prepared_stride;
  constexpr size_t kSteps = kBlock / Coding::kParts / 4;
  constexpr size_t kRun = static_cast<size_t>(run_of<Coding>()) < kSteps
                              ? static_cast<size_t>(run_of<Coding>())
                              : kSteps;
  V y[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) y[t][0] = y[t][1] = splat_v(0);
  for (size_t b = 0; b < m.groups; ++b) {
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

template <class Coding, bool kWide, bool kBlocks, int kTokens>
inline void multiply_some(const RawMatmul& m, const Panel& panel, size_t first, size_t t0) {
  if constexpr (kBlocks)
    multiply_block_tile<Coding, kTokens>(m, panel, first, t0);
  else
    multiply_tile<Coding, kWide, kTokens>(m, panel, first, t0);
}

template <class Coding, bool kWide, bool kBlocks>
void many_tokens(const RawMatmul& m) {
  const Panel panel = panel_at(m);
  for (size_t row = 0; row < m.rows; row += kPanelRows) {
    fill_panel<Coding, kBlocks>(m, row, panel);
    size_t t = 0;
    if constexpr (!kWide)
      for (; t + 6 <= m.tokens; t += 6) multiply_some<Coding, kWide, kBlocks, 6>(m, panel, row, t);
    for (; t + 4 <= m.tokens; t += 4) multiply_some<Coding, kWide, kBlocks, 4>(m, panel, row, t);
    for (; t + 2 <= m.tokens; t += 2) multiply_some<Coding, kWide, kBlocks, 2>(m, panel, row, t);
    if (t < m.tokens) multiply_some<Coding, kWide, kBlocks, 1>(m, panel, row, t);
  }
}

// ---- choice ----

template <class Coding, bool kWide, int... kGroups>
void multiply(const RawMatmul& m) {
  if (m.tokens >= kPanelTokens) return many_tokens<Coding, kWide, false>(m);
  ((m.group == kGroups ? few_tokens<multiply_rows<Coding, kWide, kGroups>>(m) : void()), ...);
}

// Codes beyond 63 only go with wide activations.
template <class Coding, int... kGroups>
void multiply_either(bool wide, const RawMatmul& m) {
  if constexpr (Coding::kCodeMax <= 63)
    if (!wide) return multiply<Coding, false, kGroups...>(m);
  multiply<Coding, true, kGroups...>(m);
}

// K-quants: whole scales go with narrow activations.
template <class Coding>
void multiply_k(bool blocks, const RawMatmul& m) {
  if (!blocks) return multiply<Coding, true, kBlock / Coding::kParts>(m);
  if (m.tokens >= kPanelTokens) return many_tokens<Coding, false, true>(m);
  few_tokens<multiply_blocks<Coding>>(m);
}

void coded(RawCoding coding, bool wide, bool blocks, const RawMatmul& m) {
  switch (coding) {
    case kAffine2: return multiply_either<Affine<2>, 32, 64, 128>(wide, m);
    case kAffine3: return multiply_either<Affine<3>, 32, 64, 128>(wide, m);
    case kAffine4: return multiply_either<Affine<4>, 32, 64, 128>(wide, m);
    case kAffine5: return multiply_either<Affine<5>, 32, 64, 128>(wide, m);
    case kAffine6: return multiply_either<Affine<6>, 32, 64, 128>(wide, m);
    case kAffine8: return multiply_either<Affine<8>, 32, 64, 128>(wide, m);
    case kMxfp4Codes: return multiply_either<FourBitFloats<false>, 32>(wide, m);
    case kNvfp4Codes: return multiply_either<FourBitFloats<true>, 16>(wide, m);
    case kQ4_0Blocks: return multiply_either<SmallBlocks<18, 4, false>, 32>(wide, m);
    case kQ4_1Blocks: return multiply_either<SmallBlocks<20, 4, true>, 32>(wide, m);
    case kQ5_0Blocks: return multiply_either<SmallBlocks<22, 5, false>, 32>(wide, m);
    case kQ5_1Blocks: return multiply_either<SmallBlocks<24, 5, true>, 32>(wide, m);
    case kQ8_0Blocks: return multiply_either<SmallBlocks<34, 8, false>, 32>(wide, m);
    case kQ2KBlocks: return multiply_k<TwoK>(blocks, m);
    case kQ3KBlocks: return multiply_k<ThreeK>(blocks, m);
    case kQ4KBlocks: return multiply_k<FourFiveK<4>>(blocks, m);
    case kQ5KBlocks: return multiply_k<FourFiveK<5>>(blocks, m);
    case kQ6KBlocks: return multiply_k<SixK>(blocks, m);
    case kCodings: return;
  }
}

// ---- where values go ----

// Where `codes` puts value i of a chunk; wide values lie by even and odd places.
struct Positions {
  uint8_t at[32];
  constexpr Positions(int apart, bool wide) : at() {
    for (int i = 0; i < 32; ++i) {
      const int place = i / apart + i % apart * (32 / apart);
      at[i] = static_cast<uint8_t>(wide ? place / 2 + place % 2 * 16 : place);
    }
  }
};
constexpr Positions kPositions[3][2] = {
    {{1, false}, {1, true}}, {{2, false}, {2, true}}, {{4, false}, {4, true}}};

const uint8_t* position(RawCoding coding, bool wide) {
  const int apart = coding == kAffine2 ? 2 : coding == kAffine4 || coding == kMxfp4Codes ? 1 : 0;
  return kPositions[apart][wide].at;
}

// ---- activations ----

inline float group_scale(const RawPrepare& p, const float* x) {
  V max = splat_v(0), poison = splat_v(0);
  for (int i = 0; i < p.group; i += 8) {
    const V v = load_v(x + i);
    max = max_v(abs_v(v), max);
    poison = poison + v * splat_v(0);
  }
  float maxima[8], poisons[8];
  store_v(maxima, max);
  store_v(poisons, poison);
  float top = 0, sum = 0;
  for (int i = 0; i < 8; ++i) {
    top = maxima[i] > top ? maxima[i] : top;
    sum = sum + poisons[i];
  }
  return top / p.top + sum;
}

inline void store_group(const RawPrepare& p, size_t first, const int32_t* whole) {
  for (int i = 0; i < p.group; ++i) {
    const size_t index = first + static_cast<size_t>(i);
    const size_t to = index / kChunk * kChunk + p.position[index % kChunk];
    if (!p.wide) {
      p.values[to] = static_cast<uint8_t>(whole[i]);
      continue;
    }
    const auto narrow = static_cast<int16_t>(whole[i]);
    memcpy(p.values + to * 2, &narrow, 2);
  }
}

inline void store_block_sums(const RawPrepare& p, size_t block, const int32_t* whole) {
  for (int g = 0; g < kBlock / p.sums_of; ++g) {
    int32_t sum = 0;
    for (int i = 0; i < p.sums_of; ++i) sum += whole[g * p.sums_of + i];
    const auto narrow = static_cast<int16_t>(sum);
    const int place = p.sums_of == 16 ? g % 2 * 8 + g / 2 : g;
    memcpy(p.sums + (block * kBlockSums + static_cast<size_t>(place)) * 2, &narrow, 2);
  }
}

void prepare(const RawPrepare& p) {
  const size_t size = static_cast<size_t>(p.group);
  for (size_t g = 0; g < p.columns / size; ++g) {
    const float* x = p.x + g * size;
    const float scale = group_scale(p, x);
    p.scales[g] = scale;
    int32_t whole[kBlock] = {}, sum = 0;
    if (scale > 0)
      for (size_t i = 0; i < size; i += 8) {
        const V steps = round_v(load_v(x + i) / splat_v(scale));
        store_whole(whole + i, to_whole(max_v(min_v(steps, splat_v(p.top)), splat_v(-p.top))));
      }
    store_group(p, g * size, whole);
    if (p.sums_of > 0) {
      store_block_sums(p, g, whole);
      continue;
    }
    for (size_t i = 0; i < size; ++i) sum += whole[i];
    const int32_t shift = p.offset * sum;
    const float part = scale * static_cast<float>(sum);
    memcpy(p.sums + g * 4, p.whole_sums ? static_cast<const void*>(&shift) : &part, 4);
  }
}

constexpr RawMatmulOps kMatmulOps = {prepare, position, coded, floats};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
