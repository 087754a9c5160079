#include "base/units.h"

#include <cmath>
#include <cstdlib>

namespace sluice {
namespace {

struct Unit {
  std::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"B", 1},           {"kB", 1e3},         {"MB", 1e6},
                           {"GB", 1e9},        {"TB", 1e12},        {"KiB", 0x1p10},
                           {"MiB", 0x1p20},    {"GiB", 0x1p30},     {"TiB", 0x1p40},
                           {"KB", 1e3}};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if ((a[i] | 0x20) != (b[i] | 0x20)) return false;
  return true;
}

}  // namespace

Result<uint64_t> parse_bytes(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string number(text.substr(0, digits));
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0')
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no size; write it like 24GB or 1.5GiB",
                text);
  if (unit.empty())
    return fail(ErrorCode::kInvalidArgument,
                "size \"{}\" has no unit; write it like 24GB (10^9 bytes) or 24GiB (2^30)", text);
  for (const Unit& known : kUnits) {
    if (!equal_ignoring_case(unit, known.name)) continue;
    const double bytes = std::floor(value * known.bytes);
    if (bytes >= 0x1p63)
      return fail(ErrorCode::kInvalidArgument, "size \"{}\" is larger than 2^63 bytes", text);
    return static_cast<uint64_t>(bytes);
  }
  return fail(ErrorCode::kInvalidArgument,
              "size \"{}\" has the unknown unit \"{}\"; known are B, kB, MB, GB, TB, KiB, MiB, GiB "
              "and TiB",
              text, unit);
}

std::string bytes_text(uint64_t bytes) {
  constexpr std::string_view kNames[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(kNames)) {
    value /= 1000;
    ++unit;
  }
  const int decimals = value < 10 ? 3 : value < 100 ? 2 : 1;
  return fmt::format("{:.{}f} {}", value, decimals, kNames[unit]);
}

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace sluice
