// The axes of a chart of some value against sizes. Private to report.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/labels.h"
#include "report/scale.h"

namespace sluice::report {

// In a drawing of that width and height. Room is left around the area for ticks and names.
inline Box chart_area(int width, int height) { return {58, 18, width - 14.0, height - 46.0}; }

// x and y: the area's scales; values: the ticks of y; name: what y is, without markup.
void draw_axes(std::string& svg, int width, int height, const Scale& x, const Scale& y,
               const std::vector<Tick>& values, std::string_view name);

}  // namespace sluice::report
