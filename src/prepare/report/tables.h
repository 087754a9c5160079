// The report's tables. Private to report.
#pragma once

#include <string>

#include "report/modules.h"

namespace sluice::report {

// Each returns "" when there is nothing to say.
std::string format_shares_table(const ModuleViews& views);
std::string weakest_table(const ModuleViews& views);
std::string experts_table(const ModuleViews& views);
std::string roles_table(const ModuleViews& views);
std::string all_modules_table(const ModuleViews& views);
std::string verification_findings(const Verification& verification);
std::string stages_table(const std::vector<Stage>& stages);
std::string facts_list(const std::vector<Fact>& facts);

}  // namespace sluice::report
