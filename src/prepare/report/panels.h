// Small drawings side by side, one per role, all to one scale: SQNR by layer, as two dots joined by
// a stem. Private to report.
#pragma once

#include <string>

#include "report/modules.h"

namespace sluice::report {

// Uniform format against chosen one; chosen alone where there is no comparison.
std::string error_panels(const ModuleViews& views);
// Whole module against its worst expert; empty without stacked experts.
std::string expert_panels(const ModuleViews& views);

}  // namespace sluice::report
