// The page's style and script as text, put into the program by CMake.
#pragma once

#include <string_view>

namespace sluice::report {

std::string_view embedded_chart_css();  // colours, and what drawings need
std::string_view embedded_page_css();
std::string_view embedded_page_js();

}  // namespace sluice::report
