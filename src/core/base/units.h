// Sizes as people write them: GB is 10⁹ bytes, GiB is 2³⁰; a bare number is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace sluice {

// "24GB", "1.5 GiB", "800MB", "123456B". Fractions of a byte are cut off.
Result<uint64_t> parse_bytes(std::string_view text);

// Four significant digits in the largest decimal unit that keeps the number above one: "24.00 GB".
std::string bytes_text(uint64_t bytes);

// "1 h 02 min", "3 min 20 s", "4.2 s".
std::string duration_text(double seconds);

}  // namespace sluice
