// Outputs as points with intervals over their sizes. Private to report.
#pragma once

#include <string>

#include "report/comparison.h"

namespace sluice::report {

enum class ComparedFigure { kDivergence, kPerplexity };

// What stands inside <svg viewBox="0 0 width height">. Divergence has a logarithmic axis, and what
// has none lies on its foot; perplexity a linear one where outputs are not far apart, with the
// reference as a line.
std::string comparison_drawing(const ComparisonInput& input, ComparedFigure figure, int width,
                               int height);

}  // namespace sluice::report
