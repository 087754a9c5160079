// Sizes as people write them: GB is 10⁹ bytes, GiB is 2³⁰; a bare number is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace sluice {

// "24GB", "1.5 GiB", "800MB", "123456B". Fractions of a byte are cut off.
Result<uint64_t> parse_bytes(std::string_view text);

// The unit of a size as it is spelled here: "GiB" for "24gib"; empty if it has none.
std::string size_unit(std::string_view text);
// A size in that unit, with enough digits to tell budgets apart: "24.3172 GiB", "0.134500 GB".
std::string bytes_text_in(uint64_t bytes, std::string_view unit);
// A size of about six digits in that unit that parse_bytes reads as at least bytes: "24.3173GiB".
std::string size_argument_at_least(uint64_t bytes, std::string_view unit);

// Four significant digits in the largest decimal unit that keeps the number above one: "24.00 GB".
std::string bytes_text(uint64_t bytes);

// "1 h 02 min", "3 min 20 s", "4.2 s".
std::string duration_text(double seconds);

}  // namespace sluice
