// The modules of a report, whatever they came from: what each was given, what that did to it, and
// what a uniform format of the same size would have done. Private to report.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "report/input.h"

namespace sluice::report {

struct ModuleView {
  std::string name;  // of its tensor
  std::string role;
  int layer = -1;
  uint64_t elements = 0, bytes = 0;
  bool quantizable = false;
  std::string format;          // "4/64 best"
  double share = 0;            // of the plan's cost
  numerics::ErrorStats after;  // of the output where it was measured, else as predicted
  std::optional<numerics::ErrorStats> before;  // in the uniform plan
  double worst_expert_db = 0;                  // +infinity: exact
  uint32_t worst_expert = 0;
  bool has_experts = false;

  double db() const { return numerics::sqnr_db(after); }
  double db_before() const { return before ? numerics::sqnr_db(*before) : 0; }
  double bits() const {
    return elements == 0 ? 0 : 8 * static_cast<double>(bytes) / static_cast<double>(elements);
  }
};

struct ModuleViews {
  std::vector<ModuleView> modules;  // in module order
  // "4/64": what the comparison is with; empty when there is none.
  std::string uniform;
  uint64_t uniform_bytes = 0;
  double uniform_cost = 0;
  bool priced = false;   // the plan has a cost of which modules have shares
  bool planned = false;  // false: no plan; every module at the most common analysed format, "4/64"
};

// The uniform plan that the chosen one is held against: of MLX's own encoder, the least costly that
// is no larger than the budget, or the smallest. nullptr when there is none.
const allocate::UniformPlan* uniform_rival(const ReportInput& input);

ModuleViews module_views(const ReportInput& input);

// The roles of quantizable modules in order of first appearance.
std::vector<std::string> roles_of(const std::vector<ModuleView>& modules);

}  // namespace sluice::report
