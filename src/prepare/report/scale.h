// From values to places on an axis, and the ticks of one. Private to report.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::report {

// Linear from [low, high] to [from, to]; to < from for an axis that points up.
struct Scale {
  double low = 0, high = 1;
  double from = 0, to = 1;
  double operator()(double value) const {
    return high > low ? from + (value - low) / (high - low) * (to - from) : (from + to) / 2;
  }
};

struct Tick {
  double value = 0;
  std::string label;
};

// Multiples of 1, 2 or 5 times a power of ten inside [low, high], about count of them.
std::vector<double> round_steps(double low, double high, int count);
// The same with labels as bytes in one unit: "0.5 GB", "1 GB".
std::vector<Tick> byte_ticks(double low, double high, int count);
// For a logarithmic axis over log10 values: decades, and 2 and 5 between them where those are few.
std::vector<Tick> log_ticks(double low, double high);

}  // namespace sluice::report
