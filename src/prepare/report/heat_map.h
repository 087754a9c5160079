// Bits by layer and role, as a table whose cells are coloured. Private to report.
#pragma once

#include <string>

#include "report/modules.h"

namespace sluice::report {

// Layers across, roles down; what lies outside the layers follows in a row of its own. Every cell
// carries two colours, one for bits and one for SQNR, and the page's script shows one of them.
std::string heat_map(const ModuleViews& views);

// Step 0 (fewest) to 8 of the colour scale.
int bits_level(double bits);
int db_level(double db);

}  // namespace sluice::report
