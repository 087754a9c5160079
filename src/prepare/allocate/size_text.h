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

}  // namespace sluice::allocate
