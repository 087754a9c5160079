// Text for HTML and SVG. Private to report.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::report {

// Safe as element text and inside a quoted attribute, whatever the bytes: markup characters become
// entities; control characters, direction marks and what is no UTF-8 become U+FFFD.
std::string escape(std::string_view text);

// The name of a tensor in a table.
std::string name_html(std::string_view name);

template <class... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

// A coordinate or a width: one decimal, no "-0.0".
std::string coordinate(double value);

// "21.83 dB", "exact".
std::string db_text(double db);
// "134.5 M", "30.53 B".
std::string count_text(uint64_t count);
// 12.3 of 100, as "12.3 %"; "0 %" when whole is 0.
std::string percent_text(double part, double whole);
// A decimal exponent as "10⁻³".
std::string power_text(int exponent);

}  // namespace sluice::report
