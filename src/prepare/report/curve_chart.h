// Error against size: the curve over all budgets, every uniform format as a dot, and the chosen
// plan. As SVG for the page, as a file of its own, or in characters for a terminal.
#pragma once

#include <string>
#include <vector>

#include "report/input.h"

namespace sluice::report {

// For a page whose style has the classes (data/page.css). width in pixels of the drawing.
std::string curve_svg(const ReportInput& input, int width, int height);
// A whole SVG document, light or dark as its viewer wishes.
std::string curve_document(const ReportInput& input);

// Lines of at most columns characters and rows lines, axis included; empty when there is nothing to
// draw. Dots of braille for the curve, a circle for each uniform format.
std::string curve_text(const ReportInput& input, size_t columns, size_t rows);

// What there is to draw. Private to report.
struct CurveDots {
  struct Dot {
    double bytes = 0, cost = 0;
    std::string label;  // "4/64"; for tips and for the dots that have room
    bool parity = true;
  };
  std::vector<Dot> curve;    // costs above zero
  std::vector<Dot> uniform;  // costs above zero
  bool has_chosen = false;
  Dot chosen;              // cost may be zero: no error at all
  double exact_bytes = 0;  // from here on there is no error; 0: not reached
  double bytes_low = 0, bytes_high = 0, log_low = 0, log_high = 0;  // the axes
  bool empty() const { return curve.empty() && uniform.empty(); }
};
CurveDots curve_dots(const ReportInput& input);

}  // namespace sluice::report
