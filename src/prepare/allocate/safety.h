// What a plan puts at risk, from its predicted errors alone: modules close to where models are
// known to break, and experts that rounding hurts more than their stack. For reports and warnings;
// no plan depends on it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "allocate/plan.h"

namespace sluice::allocate {

// Half a bit: what so little room is left over the floor is near it.
inline constexpr double kFloorMarginDb = 3;
// An expert so far below its stack has twice the stack's relative squared error.
inline constexpr double kExpertGapDb = 3;

struct NearFloor {
  std::string tensor;
  double sqnr_db = 0;
};

struct WeakExpert {
  std::string tensor;  // of the stack
  uint32_t expert = 0;
  double sqnr_db = 0;
  double stack_sqnr_db = 0;
};

struct SafetyReport {
  // The plan's floor, or the default one where the plan was allowed to go below it.
  double floor_db = 0;
  std::vector<NearFloor> near_floor;     // below floor_db + kFloorMarginDb; least SQNR first
  std::vector<WeakExpert> weak_experts;  // kExpertGapDb below their stack; least SQNR first
};

SafetyReport safety_report(const Plan& plan);

}  // namespace sluice::allocate
