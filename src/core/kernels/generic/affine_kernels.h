// The affine kernels, written once over sixteen lanes. A file per instruction set defines
// SLUICE_ISA and includes its simd.h, then this; no name leaves that file except its RawOps.
//
// Encoding works on tiles: sixteen groups side by side, one per lane, transposed so that row j
// holds element j of every group. Sums inside a group are then plain left-to-right sums, as in the
// scalar reference, and groups need no horizontal operations. Pricing all parity candidates at once
// instead runs along the row, because its three group sizes share every load.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/generic/tiles.h"
#include "kernels/raw_ops.h"
#include "numerics/affine_search.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using numerics::kBestMargin;
using numerics::kBestRefits;
using numerics::kBestStarts;
using numerics::kPriceChunk;
using numerics::kRoundMagic;

constexpr float kFloatMax = 3.40282346638528859812e+38f;
constexpr float kFloatMin = 1.17549435082228750797e-38f;
constexpr float kScaleMin = 1e-7f;  // MLX's eps
constexpr int kWidths[6] = {2, 3, 4, 5, 6, 8};

inline float top_code(int bits) { return static_cast<float>((1 << bits) - 1); }

// Rounded, and 0 where x is not finite.
inline F round_finite(F x, Element element) {
  return round_element(select(le(abs_(x), splat(kFloatMax)), x, splat(0)), element);
}

inline F load_elements(Element element, const uint8_t* in) {
  switch (element) {
    case kElementBF16: return load_bf16(in);
    case kElementF16: return load_f16(in);
    case kElementF32: break;
  }
  float values[kLanes];
  memcpy(values, in, sizeof values);
  return load(values);
}

// The first count of sixteen, values already rounded.
inline void store_elements(Element element, uint8_t* out, F x, int count) {
  uint8_t bytes[kLanes * 4];
  switch (element) {
    case kElementBF16: store_bf16(bytes, x); break;
    case kElementF16: store_f16(bytes, x); break;
    case kElementF32: {
      float values[kLanes];
      store(values, x);
      memcpy(bytes, values, sizeof values);
      break;
    }
  }
  memcpy(out, bytes, static_cast<size_t>(count) * static_cast<size_t>(element_bytes(element)));
}

inline F load_some_elements(Element element, const uint8_t* in, int count) {
  uint8_t bytes[kLanes * 4] = {};
  memcpy(bytes, in, static_cast<size_t>(count) * static_cast<size_t>(element_bytes(element)));
  return load_elements(element, bytes);
}

void decode_floats(Element element, const uint8_t* in, float* out, size_t count) {
  if (element == kElementF32) {
    memcpy(out, in, count * 4);
    return;
  }
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load_elements(element, in + i * 2));
  if (i == count) return;
  float values[kLanes];
  store(values, load_some_elements(element, in + i * 2, static_cast<int>(count - i)));
  memcpy(out + i, values, (count - i) * 4);
}

// ---- the parity rule ----

struct Params {
  F edge, inner, scale, bias;  // scale and bias as computed in f32
};

inline F round_by(F x, bool gpu_rule) {
  const F even = round_even(x);
  if (!gpu_rule) return even;
  // Half away from zero differs from half to even only where x lies half a step outside.
  const F rest = x - even;
  const M up = both(gt(x, splat(0)), eq(rest, splat(0.5f)));
  const M down = both(lt(x, splat(0)), eq(rest, splat(-0.5f)));
  return select(up, even + splat(1), select(down, even - splat(1), even));
}

inline Params parity_params(F low, F high, F top, bool gpu_rule) {
  if (gpu_rule) high = max_(high, splat(0));
  const M low_edge = gt(abs_(low), abs_(high));
  Params p;
  p.edge = select(low_edge, low, high);
  p.inner = select(low_edge, high, low);
  F scale = max_((high - low) / top, splat(kScaleMin));
  scale = select(low_edge, scale, neg(scale));
  const F steps = round_by(p.edge / scale, gpu_rule);
  const M shifted = gt(abs_(steps), splat(0));
  p.scale = select(shifted, p.edge / steps, scale);
  p.bias = select(shifted, p.edge, splat(0));
  return p;
}

struct Range {
  F low, high;
};

inline Range tile_range(const Tile& tile) {
  Range r{load(tile.w), load(tile.w)};
  for (int j = 1; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    r.low = min_(w, r.low);
    r.high = max_(w, r.high);
  }
  return r;
}

// ---- parity encoder ----

// What a tile is encoded to. scale and bias as stored.
struct Encoded {
  F scale, bias;
  double squared[kLanes], max[kLanes];
};

Encoded parity_tile(const Tile& tile, const Params& p, F top, Element element, bool gpu_rule,
                    Codes& codes) {
  Encoded out;
  out.scale = round_element(p.scale, element);
  out.bias = round_element(p.bias, element);
  ErrorSum sum = no_error();
  for (int j = 0; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    F q = round_by((w - p.bias) / p.scale, gpu_rule);
    q = min_(max_(q, splat(0)), top);
    store_codes(codes.q + j * kLanes, q);
    add_error(sum, out.scale, q, out.bias, w);
  }
  store(out.squared, sum.squared);
  store(out.max, sum.max);
  return out;
}

void write_tile(const Encoded& encoded, const Codes& codes, const Tile& tile, RawFormat format,
                size_t first_group, RawRow out) {
  const size_t packed = static_cast<size_t>(format.group / 8) * static_cast<size_t>(format.bits);
  const size_t offset = first_group * static_cast<size_t>(element_bytes(format.element));
  write_codes(codes, tile.group, tile.lanes, format.bits, out.weight + first_group * packed);
  store_elements(format.element, out.scales + offset, encoded.scale, tile.lanes);
  store_elements(format.element, out.biases + offset, encoded.bias, tile.lanes);
}

RawStats encode_parity(const float* row, size_t columns, RawFormat format, bool gpu_rule,
                       RawRow out) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const F top = splat(top_code(format.bits));
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    const Range range = tile_range(tile);
    const Params p = parity_params(range.low, range.high, top, gpu_rule);
    const Encoded encoded = parity_tile(tile, p, top, format.element, gpu_rule, codes);
    write_tile(encoded, codes, tile, format, g, out);
    gather(stats, encoded.squared, encoded.max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

// ---- best encoder ----

// A contender: its error, and where it is to be refitted the sums over codes q and d = w − bias.
struct Contender {
  F scale, bias, error;
};
struct Sums {
  F q, qq, qd;
};

inline M valid_contender(F scale, F bias) {
  const F size = abs_(scale);
  const M scale_fine = both(le(splat(kFloatMin), size), le(size, splat(kFloatMax)));
  return both(scale_fine, le(abs_(bias), splat(kFloatMax)));
}

inline F searched_code(F d, F inverse, F magic, F magic_top) {
  return min_(max_(fma(d, inverse, magic), magic), magic_top) - magic;
}

inline Contender evaluate(const Tile& tile, F scale, F bias, F top) {
  const F inverse = splat(1) / scale;
  const F magic = splat(kRoundMagic), magic_top = magic + top;
  F error = splat(0);
#pragma GCC unroll 4
  for (int j = 0; j < tile.group; ++j) {
    const F d = load(tile.w + j * kLanes) - bias;
    const F e = fnma(scale, searched_code(d, inverse, magic, magic_top), d);
    error = fma(e, e, error);
  }
  return {scale, bias, select(valid_contender(scale, bias), error, splat(kInfinity))};
}

inline Sums code_sums(const Tile& tile, F scale, F bias, F top) {
  const F inverse = splat(1) / scale;
  const F magic = splat(kRoundMagic), magic_top = magic + top;
  Sums sums{splat(0), splat(0), splat(0)};
#pragma GCC unroll 4
  for (int j = 0; j < tile.group; ++j) {
    const F d = load(tile.w + j * kLanes) - bias;
    const F q = searched_code(d, inverse, magic, magic_top);
    sums.q = sums.q + q;
    sums.qq = fma(q, q, sums.qq);
    sums.qd = fma(q, d, sums.qd);
  }
  // The sums of a leader that is no contender are zeros, which make the refit none either.
  const M valid = valid_contender(scale, bias);
  return {select(valid, sums.q, splat(0)), select(valid, sums.qq, splat(0)), sums.qd};
}

inline void contend(Contender& best, const Contender& c) {
  const M better = lt(c.error, best.error);
  best.scale = select(better, c.scale, best.scale);
  best.bias = select(better, c.bias, best.bias);
  best.error = select(better, c.error, best.error);
}

int width_index(int bits) { return bits == 8 ? 5 : bits - 2; }
int group_index(int group) { return group == 32 ? 0 : group == 64 ? 1 : 2; }

F tile_sum(const Tile& tile) {
  F sum = splat(0);
  for (int j = 0; j < tile.group; ++j) sum = sum + load(tile.w + j * kLanes);
  return sum;
}

// The leader after starts and refits, not yet held against parity.
Contender search_tile(const Tile& tile, const Params& p, F sum_w, RawFormat format) {
  const F top = splat(top_code(format.bits));
  const F count = splat(static_cast<float>(tile.group));
  Contender best = evaluate(tile, round_element(p.scale, format.element),
                            round_element(p.bias, format.element), top);
  const numerics::BestStarts& table =
      kBestStarts[width_index(format.bits)][group_index(format.group)];
  for (int k = 0; k < table.count; ++k) {
    const F inner_part = splat(static_cast<float>(256 - table.starts[k].inner) / 256.0f);
    const F edge_part = splat(static_cast<float>(256 - table.starts[k].edge) / 256.0f);
    const F bias = round_finite(p.inner * inner_part, format.element);
    const F scale = round_finite((p.edge * edge_part - bias) / top, format.element);
    contend(best, evaluate(tile, scale, bias, top));
  }
  for (int k = 0; k < kBestRefits; ++k) {
    const Sums sums = code_sums(tile, best.scale, best.bias, top);
    const F sum_d = fnma(count, best.bias, sum_w);
    const F spread = fma(count, sums.qq, neg(sums.q * sums.q));
    const F slope = fma(count, sums.qd, neg(sums.q * sum_d)) / spread;
    const F scale = select(gt(spread, splat(0)), round_finite(slope, format.element), splat(0));
    const F bias = round_finite(best.bias + fnma(scale, sums.q, sum_d) / count, format.element);
    contend(best, evaluate(tile, scale, bias, top));
  }
  return best;
}

// codes: null when only the figures are wanted.
Encoded best_tile(const Tile& tile, const Params& p, F sum_w, RawFormat format, Codes* codes) {
  const F top = splat(top_code(format.bits));
  const Contender best = search_tile(tile, p, sum_w, format);
  const F parity_scale = round_element(p.scale, format.element);
  const F parity_bias = round_element(p.bias, format.element);
  const F inverse = splat(1) / best.scale;
  const F magic = splat(kRoundMagic), magic_top = magic + top;
  Codes searched_codes;
  ErrorSum parity = no_error(), searched = no_error();
  for (int j = 0; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    const F parity_q = min_(max_(round_even((w - p.bias) / p.scale), splat(0)), top);
    const F q = searched_code(w - best.bias, inverse, magic, magic_top);
    add_error(parity, parity_scale, parity_q, parity_bias, w);
    add_error(searched, best.scale, q, best.bias, w);
    if (codes) {
      store_codes(codes->q + j * kLanes, parity_q);
      store_codes(searched_codes.q + j * kLanes, q);
    }
  }

  Encoded out;
  double searched_squared[kLanes], searched_max[kLanes];
  float error[kLanes], wins[kLanes];
  store(out.squared, parity.squared);
  store(out.max, parity.max);
  store(searched_squared, searched.squared);
  store(searched_max, searched.max);
  store(error, best.error);
  uint8_t mask[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const double bar = out.squared[l] <= kDoubleMax ? out.squared[l] : __builtin_inf();
    const bool win = error[l] < kInfinity && searched_squared[l] < bar * kBestMargin;
    wins[l] = win ? 1.0f : 0.0f;
    mask[l] = win ? 0xff : 0;
    if (!win) continue;
    out.squared[l] = searched_squared[l];
    out.max[l] = searched_max[l];
  }
  const M won = gt(load(wins), splat(0));
  out.scale = select(won, best.scale, parity_scale);
  out.bias = select(won, best.bias, parity_bias);
  if (codes) take_codes(*codes, searched_codes, mask, tile.group);
  return out;
}

RawStats encode_best(const float* row, size_t columns, RawFormat format, RawRow out) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const F top = splat(top_code(format.bits));
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    const Range range = tile_range(tile);
    const Params p = parity_params(range.low, range.high, top, false);
    const Encoded encoded = best_tile(tile, p, tile_sum(tile), format, &codes);
    write_tile(encoded, codes, tile, format, g, out);
    gather(stats, encoded.squared, encoded.max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

void price_best(const float* row, size_t columns, int group_size, Element element, const int* bits,
                int count, RawStats* stats) {
  Tile tile;
  const size_t group = static_cast<size_t>(group_size);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, group_size, lanes);
    const Range range = tile_range(tile);
    const F sum_w = tile_sum(tile);
    for (int i = 0; i < count; ++i) {
      const RawFormat format{bits[i], group_size, element};
      const Params p = parity_params(range.low, range.high, splat(top_code(bits[i])), false);
      const Encoded encoded = best_tile(tile, p, sum_w, format, nullptr);
      gather(stats[i], encoded.squared, encoded.max, lanes);
    }
    RawStats weight{0, stats[0].squared_weight, 0};
    gather_weight(weight, tile);
    for (int i = 0; i < count; ++i) stats[i].squared_weight = weight.squared_weight;
  }
}

// ---- decoding ----

RawStats row_error(const float* row, size_t columns, ConstRawRow in, RawFormat format) {
  RawStats stats{0, 0, 0};
  Tile tile;
  Codes codes;
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  const size_t packed = group / 8 * static_cast<size_t>(format.bits);
  const size_t parameter_bytes = static_cast<size_t>(element_bytes(format.element));
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, format.group, lanes);
    read_codes(in.weight + g * packed, format.group, lanes, format.bits, codes);
    const F scale = load_some_elements(format.element, in.scales + g * parameter_bytes, lanes);
    const F bias = load_some_elements(format.element, in.biases + g * parameter_bytes, lanes);
    ErrorSum sum = no_error();
    for (int j = 0; j < format.group; ++j)
      add_error(sum, scale, load_codes(codes.q + j * kLanes), bias, load(tile.w + j * kLanes));
    double squared[kLanes], max[kLanes];
    store(squared, sum.squared);
    store(max, sum.max);
    gather(stats, squared, max, lanes);
    gather_weight(stats, tile);
  }
  return stats;
}

void decode_affine(ConstRawRow in, size_t columns, RawFormat format, float* out) {
  uint8_t codes[kLanes * kGroupMax];
  float scales[kLanes], biases[kLanes];
  const size_t group = static_cast<size_t>(format.group);
  const size_t groups = columns / group;
  const size_t packed = group / 8 * static_cast<size_t>(format.bits);
  const size_t parameter_bytes = static_cast<size_t>(element_bytes(format.element));
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    unpack_group(in.weight + g * packed, format.group * lanes, format.bits, codes);
    store(scales, load_some_elements(format.element, in.scales + g * parameter_bytes, lanes));
    store(biases, load_some_elements(format.element, in.biases + g * parameter_bytes, lanes));
    for (int l = 0; l < lanes; ++l) {
      const F scale = splat(scales[l]), bias = splat(biases[l]);
      const uint8_t* q = codes + l * format.group;
      float* to = out + (g + static_cast<size_t>(l)) * group;
      for (int j = 0; j < format.group; j += kLanes)
        store(to + j, scale * load_codes(q + j) + bias);
    }
  }
}

// ---- pricing every parity candidate in one pass along the row ----

// Per group of a chunk, ready to broadcast. code_bias is the bias before it is stored.
struct PriceParams {
  alignas(64) float code_bias[64];
  alignas(64) float bias[64];
  alignas(64) float inverse[6][64];
  alignas(64) float scale[6][64];
};

// Returns whether every stored bias is exact.
bool price_params(const float* low, const float* high, int groups, Element element,
                  PriceParams& out) {
  F inexact = splat(0);
  for (int g = 0; g < groups; g += kLanes) {
    const F lows = load(low + g), highs = load(high + g);
    for (int b = 0; b < 6; ++b) {
      const Params p = parity_params(lows, highs, splat(top_code(kWidths[b])), false);
      // The bias does not depend on the width: it is 0 exactly when the edge is at most half of
      // kScaleMin, and then the scale is ±kScaleMin at every width.
      if (b == 0) {
        store(out.code_bias + g, p.bias);
        const F bias = round_element(p.bias, element);
        store(out.bias + g, bias);
        inexact = select(eq(bias, p.bias), inexact, splat(1));
      }
      const M vanished = eq(p.scale, splat(0));
      store(out.inverse[b] + g, select(vanished, splat(0), splat(1) / p.scale));
      store(out.scale[b] + g, round_element(p.scale, element));
    }
  }
  return fold_max(inexact) == 0.0f;
}

struct PriceSums {
  F squared[6], max[6];
};

// bias_exact: the stored bias is the computed one, as it is for weights representable in dtype.
template <int vectors, bool bias_exact>
inline void price_group(const float* w, const PriceParams& params, int g, PriceSums& sums) {
  const F magic = splat(kRoundMagic);
  const F code_bias = splat(params.code_bias[g]), bias = splat(params.bias[g]);
  F from_edge[vectors], from_bias[vectors];
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) {
    const F x = load(w + j * kLanes);
    from_edge[j] = x - code_bias;
    from_bias[j] = bias_exact ? from_edge[j] : x - bias;
  }
#pragma GCC unroll 6
  for (int b = 0; b < 6; ++b) {
    const F inverse = splat(params.inverse[b][g]), scale = splat(params.scale[b][g]);
    const F magic_top = splat(kRoundMagic + top_code(kWidths[b]));
    F squared = sums.squared[b], max = sums.max[b];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const F q = min_(fma(from_edge[j], inverse, magic), magic_top) - magic;
      const F error = fnma(scale, q, from_bias[j]);
      squared = fma(error, error, squared);
      max = max_abs(max, error);
    }
    sums.squared[b] = squared;
    sums.max[b] = max;
  }
}

template <int vectors>
void price_groups(const float* w, const float* low, const float* high, int groups, Element element,
                  int group_column, double* squared_error, float* error_max) {
  PriceParams params;
  const bool bias_exact = price_params(low, high, groups, element, params);
  PriceSums sums;
  for (int b = 0; b < 6; ++b) sums.squared[b] = sums.max[b] = splat(0);
  constexpr int kSize = vectors * kLanes;
  if (bias_exact)
    for (int g = 0; g < groups; ++g) price_group<vectors, true>(w + g * kSize, params, g, sums);
  else
    for (int g = 0; g < groups; ++g) price_group<vectors, false>(w + g * kSize, params, g, sums);
  for (int b = 0; b < 6; ++b) {
    const int index = b * 3 + group_column;
    squared_error[index] = squared_error[index] + static_cast<double>(fold_sum(sums.squared[b]));
    const float max = fold_max(sums.max[b]);
    if (max > error_max[index]) error_max[index] = max;
  }
}

void price_chunk(const float* w, int count, bool by_64, bool by_128, Element element,
                 double* squared_error, float* error_max, double* squared_weight) {
  constexpr int kGroups = kPriceChunk / 32;
  alignas(64) float low[3][kGroups] = {}, high[3][kGroups] = {};
  F squares = splat(0);
  const int groups = count / 32;
  for (int g = 0; g < groups; g += kLanes) {
    F lows[kLanes], highs[kLanes];
    const int lanes = least(groups - g, kLanes);
    for (int l = 0; l < lanes; ++l) {
      const float* x = w + (g + l) * 32;
      const F a = load(x), b = load(x + kLanes);
      lows[l] = min_(a, b);
      highs[l] = max_(a, b);
      squares = fma(b, b, fma(a, a, squares));
    }
    for (int l = lanes; l < kLanes; ++l) lows[l] = highs[l] = splat(0);
    store(low[0] + g, fold_min_16(lows));
    store(high[0] + g, fold_max_16(highs));
  }
  *squared_weight = *squared_weight + static_cast<double>(fold_sum(squares));
  for (int level = 1; level < 3; ++level)
    for (int g = 0; g < count / (32 << level); ++g) {
      const float* l = low[level - 1] + 2 * g;
      const float* h = high[level - 1] + 2 * g;
      low[level][g] = l[1] < l[0] ? l[1] : l[0];
      high[level][g] = h[1] > h[0] ? h[1] : h[0];
    }
  price_groups<2>(w, low[0], high[0], count / 32, element, 0, squared_error, error_max);
  if (by_64) price_groups<4>(w, low[1], high[1], count / 64, element, 1, squared_error, error_max);
  if (by_128)
    price_groups<8>(w, low[2], high[2], count / 128, element, 2, squared_error, error_max);
}

void price_parity(const float* row, size_t columns, Element element, double* squared_error,
                  float* error_max, double* squared_weight) {
  for (size_t start = 0; start < columns; start += kPriceChunk) {
    const size_t left = columns - start;
    const int count = left < kPriceChunk ? static_cast<int>(left) : kPriceChunk;
    price_chunk(row + start, count, columns % 64 == 0, columns % 128 == 0, element, squared_error,
                error_max, squared_weight);
  }
}

// ---- refusal ----

// True when all are finite and the range does not overflow. count % 16 == 0.
inline bool fine_group(const float* w, size_t count) {
  F low = load(w), high = low, poison = splat(0);
  for (size_t i = 0; i < count; i += kLanes) {
    const F x = load(w + i);
    low = min_(x, low);
    high = max_(x, high);
    poison = fma(x, splat(0), poison);  // NaN from then on when x is not finite
  }
  return fold_sum(poison) == 0.0f && fold_max(high) - fold_min(low) <= kFloatMax;
}

size_t find_unencodable(const float* row, size_t columns) {
  for (size_t start = 0; start < columns; start += kGroupMax) {
    const size_t left = columns - start;
    const size_t count = left < kGroupMax ? left : size_t{kGroupMax};
    if (count % kLanes == 0 && fine_group(row + start, count)) continue;
    float low = row[start], high = low;
    for (size_t i = start; i < start + count; ++i) {
      if (!(__builtin_fabsf(row[i]) <= kFloatMax)) return i;
      low = row[i] < low ? row[i] : low;
      high = row[i] > high ? row[i] : high;
    }
    if (!(high - low <= kFloatMax)) return start;
  }
  return columns;
}

constexpr RawOps kOps = {decode_floats, encode_parity, encode_best, decode_affine,
                         row_error,     price_parity,  price_best,  find_unencodable};

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
