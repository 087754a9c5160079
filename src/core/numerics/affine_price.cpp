#include "numerics/affine_price.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "numerics/affine_group.h"
#include "numerics/affine_search.h"

namespace sluice::numerics {
namespace {

constexpr size_t kLanes = 16;

float fold(float (&lanes)[kLanes]) {
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  return lanes[0];
}

float step_bound(float scale, float bias, float one_end, float other_end) {
  const float far = std::max(std::fabs(one_end - bias), std::fabs(other_end - bias));
  return std::min(0.5f * std::fabs(scale), far);
}

float error_bound(const AffineGroup& found, float inverse, float scale, float bias, unsigned bits) {
  const float n = static_cast<float>((1u << bits) - 1);
  float y = std::fma(found.inner - found.bias, inverse, kRoundMagic);
  y = y < kRoundMagic + n ? y : kRoundMagic + n;
  const float end = std::fma(-scale, y - kRoundMagic, found.inner - bias);
  const float moved = std::fma(n, std::fabs(found.scale - scale), std::fabs(found.bias - bias));
  return std::max(std::fabs(end),
                  step_bound(found.scale, found.bias, found.edge, found.inner) + moved);
}

// The chunk's squared error in one format; error_max is raised.
float price_chunk(std::span<const float> chunk, const QuantFormat& format, DType dtype,
                  float& error_max) {
  const float top = kRoundMagic + static_cast<float>((1u << format.bits) - 1);
  float lanes[kLanes] = {};
  for (size_t start = 0; start < chunk.size(); start += format.group_size) {
    const std::span<const float> group = chunk.subspan(start, format.group_size);
    const AffineGroup found = parity_group(group, format.bits, ParityRule::kCpu);
    const float inverse = found.scale == 0 ? 0.0f : 1.0f / found.scale;
    const float scale = round_to_dtype(found.scale, dtype);
    const float bias = round_to_dtype(found.bias, dtype);
    for (size_t i = 0; i < group.size(); ++i) {
      float y = std::fma(group[i] - found.bias, inverse, kRoundMagic);
      y = y < top ? y : top;
      const float error = std::fma(-scale, y - kRoundMagic, group[i] - bias);
      float& lane = lanes[i % kLanes];
      lane = std::fma(error, error, lane);
    }
    error_max = std::max(error_max, error_bound(found, inverse, scale, bias, format.bits));
  }
  return fold(lanes);
}

}  // namespace

AffinePrices price_affine_row(std::span<const float> row, DType dtype) {
  SLUICE_CHECK(!row.empty() && row.size() % 32 == 0);
  AffinePrices prices{};
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    if (row.size() % affine_candidate_format(index).group_size == 0) continue;
    prices.squared_error[index] = std::numeric_limits<double>::infinity();
    prices.error_max[index] = std::numeric_limits<float>::infinity();
  }
  for (size_t start = 0; start < row.size(); start += kPriceChunk) {
    const auto chunk = row.subspan(start, std::min<size_t>(kPriceChunk, row.size() - start));
    for (size_t index = 0; index < kAffineCandidates; ++index) {
      const QuantFormat format = affine_candidate_format(index);
      if (row.size() % format.group_size != 0) continue;
      prices.squared_error[index] +=
          static_cast<double>(price_chunk(chunk, format, dtype, prices.error_max[index]));
    }
    float lanes[kLanes] = {};
    for (size_t i = 0; i < chunk.size(); ++i)
      lanes[i % kLanes] = std::fma(chunk[i], chunk[i], lanes[i % kLanes]);
    prices.squared_weight += static_cast<double>(fold(lanes));
  }
  return prices;
}

BestPrice price_affine_best_row(std::span<const float> row, const QuantFormat& format,
                                DType dtype) {
  SLUICE_CHECK(!row.empty() && row.size() % format.group_size == 0);
  BestPrice price{0, 0};
  for (size_t start = 0; start < row.size(); start += format.group_size) {
    const std::span<const float> group = row.subspan(start, format.group_size);
    const SearchedGroup found = search_group(group, format, dtype);
    double squared = static_cast<double>(found.error);
    const auto [low, high] = std::ranges::minmax(group);
    const float ends = std::max(std::fabs(searched_error_at(low, found, format.bits)),
                                std::fabs(searched_error_at(high, found, format.bits)));
    float error_max = std::max(ends, step_bound(found.scale, found.bias, low, high));
    if (!(found.error < std::numeric_limits<float>::infinity())) {
      double parity_max = 0;
      squared = parity_group_error(group, format.bits, dtype, &parity_max);
      error_max = static_cast<float>(parity_max);
    }
    price.squared_error += squared;
    if (error_max > price.error_max) price.error_max = error_max;
  }
  return price;
}

}  // namespace sluice::numerics
