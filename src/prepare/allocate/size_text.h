// Byte counts as people read and type them. Header only.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace sluice::allocate {

// "24.317185 GB": always GB, so that figures compare, with enough digits for small models.
inline std::string gigabytes_text(uint64_t bytes) {
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  return fmt::format("{:.{}f} GB", gigabytes, gigabytes >= 100 ? 3 : gigabytes >= 1 ? 4 : 6);
}

// The next size of about six digits above bytes, as an argument that can be typed: "24.3172GB".
// Always a little more, because reading a fraction back may cut off a byte.
inline std::string size_argument_at_least(uint64_t bytes) {
  uint64_t step = 1;  // a power of ten that leaves six digits
  while (bytes / step >= 1'000'000) step *= 10;
  const uint64_t rounded = (bytes / step + 1) * step;
  if (bytes >= 1'000'000'000) return fmt::format("{:.10g}GB", static_cast<double>(rounded) / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.10g}MB", static_cast<double>(rounded) / 1e6);
  return fmt::format("{:.10g}KB", static_cast<double>(rounded) / 1e3);
}

}  // namespace sluice::allocate
