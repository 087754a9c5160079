#include "base/units.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/checked.h"

namespace sluice {
namespace {

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
constexpr Unit kUnits[] = {
    {"B", 1},
    {"kB", 1000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
    {"KiB", 1ull << 10},
    {"MiB", 1ull << 20},
    {"GiB", 1ull << 30},
    {"TiB", 1ull << 40},
};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if ((a[i] | 0x20) != (b[i] | 0x20)) return false;
  return true;
}

// Digits with at most one point. In whole numbers, so that 1.001kB is 1001 bytes.
struct Decimal {
  std::string_view whole, fraction;
};
std::optional<Decimal> parse_decimal(std::string_view text) {
  const size_t point = std::min(text.find('.'), text.size());
  const Decimal decimal{text.substr(0, point), text.substr(std::min(point + 1, text.size()))};
  if (decimal.fraction.find('.') != std::string_view::npos) return std::nullopt;
  if (decimal.whole.empty() && decimal.fraction.empty()) return std::nullopt;
  return decimal;
}

// floor(decimal · factor); nothing from 2⁶³ on.
std::optional<uint64_t> scaled(const Decimal& decimal, uint64_t factor) {
  uint64_t bytes = 0;
  for (const char digit : decimal.whole) {
    const auto tens = checked_mul(bytes, 10);
    if (!tens || *tens > INT64_MAX) return std::nullopt;
    bytes = *tens + static_cast<uint64_t>(digit - '0');
  }
  const auto whole = checked_mul(bytes, factor);
  if (!whole || *whole > INT64_MAX) return std::nullopt;
  // From the last digit to the first; what is cut off at each cannot reach a whole byte, because
  // digit · factor is whole.
  uint64_t part = 0;
  for (auto digit = decimal.fraction.rbegin(); digit != decimal.fraction.rend(); ++digit)
    part = (part + static_cast<uint64_t>(*digit - '0') * factor) / 10;
  if (part > INT64_MAX - *whole) return std::nullopt;
  return *whole + part;
}

// "1.5 GiB" is "1.5" and "GiB".
std::pair<std::string_view, std::string_view> split_size(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  return {text.substr(0, digits), unit};
}

const Unit* find_unit(std::string_view name) {
  for (const Unit& unit : kUnits)
    if (equal_ignoring_case(name, unit.name)) return &unit;
  return nullptr;
}

}  // namespace

std::string size_unit(std::string_view text) {
  const Unit* unit = find_unit(split_size(text).second);
  return unit == nullptr ? "" : std::string(unit->name);
}

std::string bytes_text_in(uint64_t bytes, std::string_view unit) {
  const Unit* known = find_unit(unit);
  SLUICE_CHECK(known != nullptr);
  if (known->bytes == 1) return fmt::format("{} B", bytes);
  const double value = static_cast<double>(bytes) / static_cast<double>(known->bytes);
  return fmt::format("{:.{}f} {}", value, value >= 100 ? 3 : value >= 1 ? 4 : 6, known->name);
}

std::string size_argument_at_least(uint64_t bytes, std::string_view unit) {
  const Unit* known = find_unit(unit);
  SLUICE_CHECK(known != nullptr);
  if (known->bytes == 1) return fmt::format("{}B", bytes);
  const double value = static_cast<double>(bytes) / static_cast<double>(known->bytes);
  int decimals = 0;
  double scale = 1;
  for (; value * scale < 1e5 && decimals < 15; ++decimals) scale *= 10;
  // Up from the quotient's floor until the text, whose fraction of a byte is cut off, is enough.
  for (double steps = std::floor(value * scale);; ++steps) {
    const std::string text = fmt::format("{:.{}f}{}", steps / scale, decimals, known->name);
    const auto parsed = parse_bytes(text);
    if (!parsed || *parsed >= bytes) return text;
  }
}

Result<uint64_t> parse_bytes(std::string_view text) {
  const auto [digits, unit] = split_size(text);
  const auto number = parse_decimal(digits);
  if (!number)
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no size; write it like 24GB or 1.5GiB",
                text);
  if (unit.empty())
    return fail(ErrorCode::kInvalidArgument,
                "size \"{}\" has no unit; write it like 24GB (10^9 bytes) or 24GiB (2^30)", text);
  if (const Unit* known = find_unit(unit)) {
    const auto bytes = scaled(*number, known->bytes);
    if (!bytes)
      return fail(ErrorCode::kInvalidArgument, "size \"{}\" is larger than 2^63 bytes", text);
    return *bytes;
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
  const int decimals = value < 9.9995 ? 3 : value < 99.995 ? 2 : 1;
  return fmt::format("{:.{}f} {}", value, decimals, kNames[unit]);
}

std::string duration_text(double seconds) {
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace sluice
