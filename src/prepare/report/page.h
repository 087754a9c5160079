// The report as one self-contained HTML page: nothing is fetched, every string from a file is
// escaped, and the same input gives the same bytes.
#pragma once

#include <string>

#include "report/input.h"

namespace sluice::report {

std::string report_page(const ReportInput& input);

}  // namespace sluice::report
