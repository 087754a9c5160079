// How far an encoding is from its source: sums that merge, and the figures read off them.
// Header only.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace sluice::numerics {

// squared_error = Σ(ŵ−w)², squared_weight = Σw², both over the same elements.
struct ErrorStats {
  double squared_error = 0;
  double squared_weight = 0;
  double error_max = 0;  // largest |ŵ−w|

  void merge(const ErrorStats& other) {
    squared_error += other.squared_error;
    squared_weight += other.squared_weight;
    error_max = std::max(error_max, other.error_max);
  }
  bool operator==(const ErrorStats&) const = default;
};

// Σ(ŵ−w)²/Σw²; 0 for an all-zero tensor encoded exactly, infinity for one that is not.
inline double nrmse_squared(const ErrorStats& stats) {
  if (stats.squared_error == 0) return 0;
  if (stats.squared_weight == 0) return std::numeric_limits<double>::infinity();
  return stats.squared_error / stats.squared_weight;
}

// Sums in f64, element after element; decoded.size() == source.size().
inline ErrorStats error_between(std::span<const float> source, std::span<const float> decoded) {
  ErrorStats stats;
  for (size_t i = 0; i < source.size(); ++i) {
    const double error = double{decoded[i]} - double{source[i]};
    stats.squared_error += error * error;
    stats.squared_weight += double{source[i]} * double{source[i]};
    stats.error_max = std::max(stats.error_max, std::fabs(error));
  }
  return stats;
}

// Signal to quantization noise in dB; +infinity for an exact encoding.
inline double sqnr_db(const ErrorStats& stats) { return -10 * std::log10(nrmse_squared(stats)); }

}  // namespace sluice::numerics
