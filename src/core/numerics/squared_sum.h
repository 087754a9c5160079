// Σw² of many weights in an order that vector units like. Header only.
#pragma once

#include <cstddef>
#include <span>

namespace sluice::numerics {

inline constexpr size_t kSquaredSumLanes = 16;

// In f64. Element i goes to partial sum i mod 16, each taken from first to last; then the partial
// sums are added from first to last. One running sum would wait for each addition.
inline double squared_sum(std::span<const float> values) {
  double sums[kSquaredSumLanes] = {};
  const size_t whole = values.size() / kSquaredSumLanes * kSquaredSumLanes;
  for (size_t i = 0; i < whole; i += kSquaredSumLanes)
    for (size_t lane = 0; lane < kSquaredSumLanes; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  for (size_t i = whole; i < values.size(); ++i)
    sums[i - whole] += double{values[i]} * double{values[i]};
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace sluice::numerics
