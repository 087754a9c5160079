// The search of the `best` encoder over sixteen groups at once: contenders, refits, the leader.
// Rule and order: numerics/affine.h.
#pragma once

#include "kernels/generic/affine_rule.h"
#include "numerics/affine_search.h"

namespace sluice::kernels::SLUICE_ISA {
namespace {

using numerics::kBestRefits;
using numerics::kBestStarts;
using numerics::kRoundMagic;

constexpr float kFloatMin = 1.17549435082228750797e-38f;

// Rounded, and 0 where x is not finite.
inline F round_finite(F x, Element element) {
  return round_element(select(le(abs_(x), splat(kFloatMax)), x, splat(0)), element);
}

inline M valid_contender(F scale, F bias) {
  const F size = abs_(scale);
  const M scale_fine = both(le(splat(kFloatMin), size), le(size, splat(kFloatMax)));
  return both(scale_fine, le(abs_(bias), splat(kFloatMax)));
}

template <bool below = true, bool above = true>
inline F searched_code(F d, F inverse, F magic, F magic_top) {
  F y = fma(d, inverse, magic);
  if constexpr (below) y = max_(y, magic);
  if constexpr (above) y = min_(y, magic_top);
  return y - magic;
}

// Sums over codes q and d = w − bias, for a refit.
struct Sums {
  F q, qq, qd;
};

// A contender and its error; infinite where scale or bias is no valid one.
struct Contender {
  F scale, bias, error;
};

// sums: null where no refit follows. below, above: whether codes may need to be clamped there.
template <bool below, bool above, bool with_sums>
inline F search_error(const Tile& tile, F scale, F bias, F inverse, F top, Sums* sums) {
  const F magic = splat(kRoundMagic), magic_top = magic + top;
  F error = splat(0), sum_q = splat(0), sum_qq = splat(0), sum_qd = splat(0);
#pragma GCC unroll 4
  for (int j = 0; j < tile.group; ++j) {
    const F d = load(tile.w + j * kLanes) - bias;
    const F q = searched_code<below, above>(d, inverse, magic, magic_top);
    const F e = fnma(scale, q, d);
    error = fma(e, e, error);
    if constexpr (with_sums) {
      sum_q = sum_q + q;
      sum_qq = fma(q, q, sum_qq);
      sum_qd = fma(q, d, sum_qd);
    }
  }
  if constexpr (with_sums) *sums = {sum_q, sum_qq, sum_qd};
  return error;
}

// Codes are clamped only where the ends of some lane's range need it: a code never falls from one
// weight to a larger one divided by the same scale, so the others lie between.
template <bool with_sums>
inline Contender evaluate(const Tile& tile, const Range& range, F scale, F bias, F top,
                          Sums* sums) {
  const F inverse = splat(1) / scale, magic = splat(kRoundMagic);
  const M valid = valid_contender(scale, bias);
  const F low = select(valid, fma(range.low - bias, inverse, magic), magic);
  const F high = select(valid, fma(range.high - bias, inverse, magic), magic);
  const bool below = !(fold_min(min_(low, high)) >= kRoundMagic);
  const bool above = !(fold_max(max_(low, high) - top) <= kRoundMagic);
  F error;
  if (below && above)
    error = search_error<true, true, with_sums>(tile, scale, bias, inverse, top, sums);
  else if (below)
    error = search_error<true, false, with_sums>(tile, scale, bias, inverse, top, sums);
  else if (above)
    error = search_error<false, true, with_sums>(tile, scale, bias, inverse, top, sums);
  else
    error = search_error<false, false, with_sums>(tile, scale, bias, inverse, top, sums);
  if constexpr (with_sums) {  // zeros make the refit no contender either
    sums->q = select(valid, sums->q, splat(0));
    sums->qq = select(valid, sums->qq, splat(0));
  }
  return {scale, bias, select(valid, error, splat(kInfinity))};
}

// Where c is better.
inline M contend(Contender& best, const Contender& c) {
  const M better = lt(c.error, best.error);
  best.scale = select(better, c.scale, best.scale);
  best.bias = select(better, c.bias, best.bias);
  best.error = select(better, c.error, best.error);
  return better;
}

int width_index(int bits) { return bits == 8 ? 5 : bits - 2; }
int group_index(int group) { return group == 32 ? 0 : group == 64 ? 1 : 2; }

F tile_sum(const Tile& tile) {
  F sum = splat(0);
  for (int j = 0; j < tile.group; ++j) sum = sum + load(tile.w + j * kLanes);
  return sum;
}

// The range shrunk as the start says.
inline Contender start_contender(const Tile& tile, const Range& range, const Params& p, F top,
                                 Element element, numerics::RangeShrink start) {
  const F inner_part = splat(static_cast<float>(256 - start.inner) / 256.0f);
  const F edge_part = splat(static_cast<float>(256 - start.edge) / 256.0f);
  const F bias = round_finite(p.inner * inner_part, element);
  const F scale = round_finite((p.edge * edge_part - bias) / top, element);
  return evaluate<false>(tile, range, scale, bias, top, nullptr);
}

// The leader after starts and refits, not yet held against parity.
Contender search_tile(const Tile& tile, const Range& range, const Params& p, F sum_w,
                      RawFormat format) {
  const F top = splat(top_code(format.bits));
  const F count = splat(static_cast<float>(tile.group));
  Contender best = evaluate<false>(tile, range, round_element(p.scale, format.element),
                                   round_element(p.bias, format.element), top, nullptr);
  const numerics::BestStarts& table =
      kBestStarts[width_index(format.bits)][group_index(format.group)];
  for (int k = 0; k < table.count; ++k)
    contend(best, start_contender(tile, range, p, top, format.element, table.starts[k]));
  Sums sums;
  evaluate<true>(tile, range, best.scale, best.bias, top, &sums);
  for (int k = 0; k < kBestRefits; ++k) {
    const F sum_d = fnma(count, best.bias, sum_w);
    const F spread = fma(count, sums.qq, neg(sums.q * sums.q));
    const F slope = fma(count, sums.qd, neg(sums.q * sum_d)) / spread;
    const F scale = select(gt(spread, splat(0)), round_finite(slope, format.element), splat(0));
    const F bias = round_finite(best.bias + fnma(scale, sums.q, sum_d) / count, format.element);
    if (k + 1 == kBestRefits) {
      contend(best, evaluate<false>(tile, range, scale, bias, top, nullptr));
      break;
    }
    Sums next;
    const M better = contend(best, evaluate<true>(tile, range, scale, bias, top, &next));
    sums = {select(better, next.q, sums.q), select(better, next.qq, sums.qq),
            select(better, next.qd, sums.qd)};
  }
  return best;
}

}  // namespace
}  // namespace sluice::kernels::SLUICE_ISA
