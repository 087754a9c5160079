// The data files of this folder as text, put into the program by CMake.
#pragma once

#include <string_view>

namespace sluice::allocate {

std::string_view embedded_sensitivity_json();
std::string_view embedded_devices_json();

}  // namespace sluice::allocate
