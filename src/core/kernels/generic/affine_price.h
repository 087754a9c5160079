// What candidates would cost, without encoding: all parity candidates in one pass along the row,
// whose three group sizes share every load, and the `best` encoder's from its search. Definitions:
// numerics/affine_price.h.
#pragma once

#include "kernels/generic/affine_search.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using numerics::kPriceChunk;

constexpr int kWidths[6] = {2, 3, 4, 5, 6, 8};

// ---- parity ----

// Per group of a chunk, ready to broadcast. code_bias is the bias before it is stored.
struct PriceParams {
  alignas(64) float code_bias[64];
  alignas(64) float bias[64];
  alignas(64) float inverse[6][64];
  alignas(64) float scale[6][64];
  F error_max[6];  // of the groups; bounds
};

// Half a step, which no code is off by more, or the whole distance from the bias where even that is
// less and all codes are 0.
inline F step_bound(F scale, F bias, F one_end, F other_end) {
  const F far = max_(abs_(one_end - bias), abs_(other_end - bias));
  return min_(splat(0.5f) * abs_(scale), far);
}

// Bounds |ŵ − w| of a group: the step, what storing scale and bias moves the farthest code, and the
// end of the range that parity does not take, which its shifted scale may cut off.
inline F price_bound(const Params& p, F inverse, F scale, F bias, F top) {
  const F magic = splat(kRoundMagic);
  const F q = min_(fma(p.inner - p.bias, inverse, magic), magic + top) - magic;
  const F end = fnma(scale, q, p.inner - bias);
  const F moved = fma(top, abs_(p.scale - scale), abs_(p.bias - bias));
  return max_(abs_(end), step_bound(p.scale, p.bias, p.edge, p.inner) + moved);
}

// low, high: up to a multiple of sixteen, those behind groups repeating its last. Returns whether
// every stored bias is exact.
bool price_params(const float* low, const float* high, int groups, Element element,
                  PriceParams& out) {
  F inexact = splat(0), stored_bias = splat(0);
  for (int b = 0; b < 6; ++b) out.error_max[b] = splat(0);
  for (int g = 0; g < groups; g += kLanes) {
    const F lows = load(low + g), highs = load(high + g);
    for (int b = 0; b < 6; ++b) {
      const Params p = parity_params(lows, highs, splat(top_code(kWidths[b])), false);
      // The bias does not depend on the width: it is 0 exactly when the edge is at most half of
      // kScaleMin, and then the scale is ±kScaleMin at every width.
      if (b == 0) {
        store(out.code_bias + g, p.bias);
        stored_bias = round_element(p.bias, element);
        store(out.bias + g, stored_bias);
        inexact = select(eq(stored_bias, p.bias), inexact, splat(1));
      }
      const M vanished = eq(p.scale, splat(0));
      const F inverse = select(vanished, splat(0), splat(1) / p.scale);
      const F scale = round_element(p.scale, element);
      store(out.inverse[b] + g, inverse);
      store(out.scale[b] + g, scale);
      const F bound = price_bound(p, inverse, scale, stored_bias, splat(top_code(kWidths[b])));
      out.error_max[b] = max_(bound, out.error_max[b]);
    }
  }
  return fold_max(inexact) == 0.0f;
}

// bias_exact: the stored bias is the computed one, as it is for weights representable in dtype.
template <int vectors, bool bias_exact>
inline void price_group(const float* w, const PriceParams& params, int g, F* sums) {
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
    F squared = sums[b];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const F q = min_(fma(from_edge[j], inverse, magic), magic_top) - magic;
      const F error = fnma(scale, q, from_bias[j]);
      squared = fma(error, error, squared);
    }
    sums[b] = squared;
  }
}

template <int vectors>
void price_groups(const float* w, const float* low, const float* high, int groups, Element element,
                  int group_column, double* squared_error, float* error_max) {
  PriceParams params;
  const bool bias_exact = price_params(low, high, groups, element, params);
  F sums[6];
  for (int b = 0; b < 6; ++b) sums[b] = splat(0);
  constexpr int kSize = vectors * kLanes;
  if (bias_exact)
    for (int g = 0; g < groups; ++g) price_group<vectors, true>(w + g * kSize, params, g, sums);
  else
    for (int g = 0; g < groups; ++g) price_group<vectors, false>(w + g * kSize, params, g, sums);
  for (int b = 0; b < 6; ++b) {
    const int index = b * 3 + group_column;
    squared_error[index] = squared_error[index] + static_cast<double>(fold_sum(sums[b]));
    const float max = fold_max(params.error_max[b]);
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
    for (int l = lanes; l < kLanes; ++l) {
      lows[l] = lows[lanes - 1];
      highs[l] = highs[lanes - 1];
    }
    store(low[0] + g, fold_min_16(lows));
    store(high[0] + g, fold_max_16(highs));
  }
  *squared_weight = *squared_weight + static_cast<double>(fold_sum(squares));
  for (int level = 1; level < 3; ++level) {
    const int wider = count / (32 << level);
    for (int g = 0; g < wider; ++g) {
      const float* l = low[level - 1] + 2 * g;
      const float* h = high[level - 1] + 2 * g;
      low[level][g] = l[1] < l[0] ? l[1] : l[0];
      high[level][g] = h[1] > h[0] ? h[1] : h[0];
    }
    for (int g = wider; g > 0 && g % kLanes != 0; ++g) {
      low[level][g] = low[level][wider - 1];
      high[level][g] = high[level][wider - 1];
    }
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

// ---- best ----

// A group whose scale and bias no contender may have: parity's error as its encoder measures it.
void price_without_search(const Tile& tile, const Params& p, F top, Element element,
                          const float* searched, double* squared, float* max) {
  const F scale = round_element(p.scale, element), bias = round_element(p.bias, element);
  ErrorSum sum = no_error();
  for (int j = 0; j < tile.group; ++j) {
    const F w = load(tile.w + j * kLanes);
    add_error(sum, scale, parity_code(w, p, top, false), bias, w);
  }
  double parity_squared[kLanes], parity_max[kLanes];
  store(parity_squared, sum.squared);
  store(parity_max, sum.max);
  for (int l = 0; l < tile.lanes; ++l) {
    if (searched[l] < kInfinity) continue;
    squared[l] = parity_squared[l];
    max[l] = static_cast<float>(parity_max[l]);
  }
}

// The error at one end of the leader's range.
inline F end_error(const Contender& c, F end, F top) {
  const F magic = splat(kRoundMagic), d = end - c.bias;
  return abs_(fnma(c.scale, searched_code(d, splat(1) / c.scale, magic, magic + top), d));
}

void price_best_tile(const Tile& tile, const Range& range, F sum_w, RawFormat format,
                     double* squared_error, float* error_max) {
  const F top = splat(top_code(format.bits));
  const Params p = parity_params(range.low, range.high, top, false);
  const Contender best = search_tile(tile, range, p, sum_w, format);
  const F ends = max_(end_error(best, range.low, top), end_error(best, range.high, top));
  float errors[kLanes], max[kLanes];
  store(errors, best.error);
  store(max, max_(ends, step_bound(best.scale, best.bias, range.low, range.high)));
  double squared[kLanes];
  for (int l = 0; l < kLanes; ++l) squared[l] = static_cast<double>(errors[l]);
  if (fold_max(best.error) == kInfinity)
    price_without_search(tile, p, top, format.element, errors, squared, max);
  for (int l = 0; l < tile.lanes; ++l) {
    *squared_error = *squared_error + squared[l];
    if (max[l] > *error_max) *error_max = max[l];
  }
}

void price_best(const float* row, size_t columns, int group_size, Element element, const int* bits,
                int count, double* squared_error, float* error_max) {
  Tile tile;
  const size_t group = static_cast<size_t>(group_size);
  const size_t groups = columns / group;
  for (size_t g = 0; g < groups; g += kLanes) {
    const int lanes = groups - g < kLanes ? static_cast<int>(groups - g) : kLanes;
    load_tile(tile, row + g * group, group_size, lanes);
    const Range range = tile_range(tile);
    const F sum_w = tile_sum(tile);
    for (int i = 0; i < count; ++i)
      price_best_tile(tile, range, sum_w, {bits[i], group_size, element}, &squared_error[i],
                      &error_max[i]);
  }
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
