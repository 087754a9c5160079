#include "report/scale.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>
#include <utility>

#include "report/html.h"

namespace sluice::report {
namespace {

// log10 of 2 and 5, spelled out so that ticks do not depend on a library's last digit.
constexpr double kLog2 = 0.30102999566398120;
constexpr double kLog5 = 0.69897000433601880;

double round_step(double span, int count) {
  const double rough = span / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

}  // namespace

std::vector<double> round_steps(double low, double high, int count) {
  std::vector<double> steps;
  if (!(high > low)) return steps;
  const double step = round_step(high - low, count);
  for (double k = std::ceil(low / step); k * step <= high * (1 + 1e-12); ++k)
    steps.push_back(k * step);
  return steps;
}

std::vector<Tick> byte_ticks(double low, double high, int count) {
  struct Unit {
    double bytes;
    std::string_view name;
  };
  constexpr Unit kUnits[] = {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}};
  Unit unit = kUnits[4];
  for (const Unit& candidate : kUnits) {
    unit = candidate;
    if (high >= 2 * candidate.bytes) break;
  }
  std::vector<Tick> ticks;
  for (const double value : round_steps(low, high, count))
    ticks.push_back({value, fmt::format("{:g} {}", value / unit.bytes, unit.name)});
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high) {
  const bool finer = high - low < 2.5;
  std::vector<Tick> ticks;
  for (int decade = static_cast<int>(std::floor(low)); decade <= high; ++decade) {
    if (decade >= low) ticks.push_back({static_cast<double>(decade), power_text(decade)});
    for (const auto& [factor, log] : {std::pair{2, kLog2}, std::pair{5, kLog5}})
      if (finer && decade + log >= low && decade + log <= high)
        ticks.push_back({decade + log, fmt::format("{}·{}", factor, power_text(decade))});
  }
  return ticks;
}

}  // namespace sluice::report
