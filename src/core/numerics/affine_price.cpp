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
      error_max = std::fabs(error) > error_max ? std::fabs(error) : error_max;
    }
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

}  // namespace sluice::numerics
