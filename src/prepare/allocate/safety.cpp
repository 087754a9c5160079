#include "allocate/safety.h"

#include <algorithm>

#include "allocate/problem.h"

namespace sluice::allocate {

SafetyReport safety_report(const Plan& plan) {
  SafetyReport report;
  report.floor_db = std::max(plan.data().sqnr_floor_db, ProblemSettings{}.sqnr_floor_db);
  for (const PlannedTensor& tensor : plan.data().tensors) {
    if (tensor.format.mode == numerics::QuantMode::kFloat) continue;
    const double db = sqnr_db(tensor.error);
    if (db < report.floor_db + kFloorMarginDb)
      report.near_floor.push_back({tensor.tensor_name(), db});
    if (tensor.worst_expert_sqnr_db < db - kExpertGapDb)
      report.weak_experts.push_back(
          {tensor.tensor_name(), tensor.worst_expert, tensor.worst_expert_sqnr_db, db});
  }
  std::ranges::stable_sort(report.near_floor, {}, &NearFloor::sqnr_db);
  std::ranges::stable_sort(report.weak_experts, {}, &WeakExpert::sqnr_db);
  return report;
}

}  // namespace sluice::allocate
