// Products of few tokens with coded weights, straight from the packing: eight rows at a time, whole
// numbers within a group, and groups folded in order into one f32 lane per row. To be included
// after the primitives and P.
#pragma once

#include "kernels/generic/matmul_codings.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

constexpr size_t kChunk = 32;  // codes unpacked together

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
inline V fold(V y, I sum, V scales, V biases, const TokenGroup& token) {
  if constexpr (kBias) {
    float part;
    memcpy(&part, token.sum, 4);
    y = fma_v(scales * splat_v(token.scale), to_floats(sum), y);
    return fma_v(biases, splat_v(part), y);
  } else {
    int32_t shift;
    memcpy(&shift, token.sum, 4);
    return fma_v(scales * splat_v(token.scale), to_floats(sum - splat_sum(shift)), y);
  }
}
template <bool kBias>
inline V fold(V y, I sum, const float* scales, const float* biases, const TokenGroup& token) {
  return fold<kBias>(y, sum, load_v(scales), kBias ? load_v(biases) : splat_v(0), token);
}

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
// A few lines at a time, when they are next: many at once fill what a core can have under way, and
// it waits. Blocks of 32 with their scales inside do best from near by into the inner cache; where
// that is roomy, from eight neighbouring rows, while the next eight are asked for in the order in
// which memory has them. Codes that lie by themselves, and the large blocks that are multiplied in
// 512 bits, do best from farther ahead: into the inner cache, on their way through, where that is
// roomy, and else from far into an outer one (measured: bench/log.tsv).
constexpr size_t kLine = 64;
constexpr size_t kAhead = 512;
constexpr size_t kStreamAhead = 1024;
constexpr size_t kFarAhead = 2048;
constexpr size_t kScalesAhead = 192;
constexpr size_t kScaleGroups = kLine / 2;  // groups whose scales, in 16 bits, fill a line
// As __builtin_prefetch counts; kOnce: into the inner cache, but an outer one does not keep it.
constexpr int kInner = 3, kOuter = 1, kOnce = 0;

// Lines that begin within bytes [from, from + bytes) of a row, or of each of eight.
[[gnu::always_inline]] inline void fetch_row(const uint8_t* row, size_t from, size_t bytes) {
  for (size_t at = (from + kLine - 1) / kLine * kLine; at < from + bytes; at += kLine)
    __builtin_prefetch(row + at + kAhead);
}
template <int kLocality>
[[gnu::always_inline]] inline void fetch_eight(const Rows& rows, size_t ahead) {
  asm("" : "+r"(ahead));  // else eight sums of rows and distance take registers
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) __builtin_prefetch(rows.weight[i] + ahead, 0, kLocality);
}
// Eight lines of the next eight rows, as far into those as one row is into its own.
[[gnu::always_inline]] inline void fetch_neighbours(const RawMatmul& m, const Rows& rows,
                                                    size_t at) {
  const uint8_t* next = rows.weight[0] + 8 * (m.weight_stride + at);
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) __builtin_prefetch(next + i * kLine, 0, kOnce);
}
template <class Coding>
inline bool in_neighbours(const RawMatmul& m) {
  return kInSmallBlocks<Coding> && m.roomy;
}
template <class Coding, bool kNear = kInBlocks<Coding>>
[[gnu::always_inline]] inline void fetch_weights(const RawMatmul& m, const Rows& rows, size_t from,
                                                 size_t bytes) {
  for (size_t at = (from + kLine - 1) / kLine * kLine; at < from + bytes; at += kLine) {
    if (in_neighbours<Coding>(m))
      fetch_neighbours(m, rows, at);
    else if (kNear)
      fetch_eight<kInner>(rows, at + kAhead);
    else if (m.roomy)
      fetch_eight<kOnce>(rows, at + kStreamAhead);
    else
      fetch_eight<kOuter>(rows, at + kFarAhead);
  }
}
[[gnu::always_inline]] inline void fetch_scales(const Rows& rows, size_t from) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    __builtin_prefetch(rows.scales[i] + from + kScalesAhead);
    __builtin_prefetch(rows.biases[i] + from + kScalesAhead);
  }
}

// Where a set has wider registers: adds the products of some groups from the first on to y and
// returns how many, a multiple of eight.
template <class Coding, bool kWide, int kGroup>
struct Front {
  static size_t multiply(const RawMatmul&, const Rows&, size_t, V&) { return 0; }
};

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
  for (size_t g0 = Front<Coding, kWide, kGroup>::multiply(m, rows, t, y); g0 < m.groups; g0 += 8) {
    const int groups = m.groups - g0 < 8 ? static_cast<int>(m.groups - g0) : 8;
    Coding::parameters(m, rows, g0, groups, parameters);
    if (g0 % kScaleGroups == 0 && m.scale_stride > 0)
      fetch_scales(rows, g0 * m.scale_stride / m.groups);
    for (int g = 0; g < groups; g += kGroupsTogether) {
      const size_t group = g0 + static_cast<size_t>(g);
      fetch_weights<Coding>(m, rows, group * part / 8, part * kGroupsTogether / 8);
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

// Eight rows at a time by kMultiply: neighbours, or an eighth of all apart, so that each stream
// goes on from block to block.
template <class Coding, V (*kMultiply)(const RawMatmul&, const Rows&, size_t)>
void few_tokens(const RawMatmul& m) {
  const size_t blocks = (m.rows + 7) / 8;
  const bool neighbours = in_neighbours<Coding>(m);
  const size_t step = neighbours ? 1 : blocks;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t first = neighbours ? block * 8 : block;
    const Rows rows = rows_at(m, first, step);
    for (size_t t = 0; t < m.tokens; ++t) {
      float lanes[8];
      store_v(lanes, kMultiply(m, rows, t));
      float* out = m.y + t * m.y_stride + first;
      for (size_t i = 0; i * step + first < m.rows && i < 8; ++i) out[i * step] = lanes[i];
    }
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
