// Configurations as Python writes them.
#pragma once

#include <string>
#include <string_view>

namespace sluice::io {

// Python's json writes three numbers that JSON does not know. Outside of strings, Infinity becomes
// the largest double, which is infinite again in f32, -Infinity the lowest, and NaN null. Text
// without them is returned as it is.
std::string without_python_numbers(std::string_view text);

}  // namespace sluice::io
