// Warnings read off a plan: which modules are near the floor, which experts far below their stack.
#include "allocate/safety.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A module at so many dB, whose worst expert is at worst_db.
PlannedTensor module_at(const std::string& path, double db, double worst_db) {
  PlannedTensor tensor;
  tensor.path = path;
  tensor.parameter = "weight";
  tensor.role = "expert down";
  tensor.elements = 4096;
  tensor.quantizable = true;
  tensor.format = {QuantMode::kAffine, 2, 64};
  tensor.encoder = Encoder::kParity;
  tensor.bytes = 4096 / 4 + 64 * 4;
  tensor.alpha = 1;
  tensor.error = {std::pow(10, -db / 10), 1, 0.5};
  tensor.worst_expert_sqnr_db = worst_db;
  tensor.worst_expert = 5;
  return tensor;
}

Plan plan_of(std::vector<PlannedTensor> tensors, double floor_db) {
  PlanData data;
  data.tensors = std::move(tensors);
  for (const PlannedTensor& tensor : data.tensors) {
    data.tensor_bytes += tensor.bytes;
    data.elements += tensor.elements;
    data.cost += tensor.alpha * nrmse_squared(tensor.error);
  }
  data.bound = data.cost;
  data.exact_bytes = data.budget_bytes = data.tensor_bytes + 16384;
  data.objective = "nrmse-squared";
  data.method = "exact";
  data.configs = "all";
  data.dtype = "bfloat16";
  data.parity = "cpu";
  data.sqnr_floor_db = floor_db;
  return *Plan::create(std::move(data));
}

PlannedTensor unquantized(const std::string& path) {
  PlannedTensor tensor = module_at(path, 60, kInfinity);
  tensor.format = {};
  tensor.encoder = Encoder::kCast;
  tensor.bytes = 8192;
  tensor.error = {0, 1, 0};
  return tensor;
}

TEST(Safety, NamesModulesWithinHalfABitOfTheFloorLeastFirst) {
  const Plan plan = plan_of({module_at("a", 11.5, 11.5), module_at("b", 12.5, 12.5),
                             module_at("c", 9.25, 9.25), unquantized("d")},
                            9);
  const SafetyReport safety = safety_report(plan);
  EXPECT_EQ(safety.floor_db, 9);
  ASSERT_EQ(safety.near_floor.size(), 2u);
  EXPECT_EQ(safety.near_floor[0].tensor, "c.weight");
  EXPECT_NEAR(safety.near_floor[0].sqnr_db, 9.25, 1e-9);
  EXPECT_EQ(safety.near_floor[1].tensor, "a.weight");
  EXPECT_TRUE(safety.weak_experts.empty());
}

// Who allows more than the default does is warned all the same; who allows less is held to that.
TEST(Safety, TheFloorIsThePlansOrTheDefaultWhicheverIsHigher) {
  const std::vector<PlannedTensor> tensors = {module_at("a", 6, 6), module_at("b", 21, 21)};
  for (const double floor : {-kInfinity, 3.0}) {
    const SafetyReport safety = safety_report(plan_of(tensors, floor));
    EXPECT_EQ(safety.floor_db, 9);
    EXPECT_EQ(safety.near_floor.size(), 1u);
  }
  EXPECT_EQ(safety_report(plan_of(tensors, 20)).near_floor.size(), 2u);
}

TEST(Safety, NamesExpertsFarBelowTheirStack) {
  const Plan plan = plan_of({module_at("a", 20, 16.5), module_at("b", 20, 17.5),
                             module_at("c", 30, 13), unquantized("d")},
                            9);
  const SafetyReport safety = safety_report(plan);
  ASSERT_EQ(safety.weak_experts.size(), 2u);
  EXPECT_EQ(safety.weak_experts[0].tensor, "c.weight");
  EXPECT_EQ(safety.weak_experts[0].expert, 5u);
  EXPECT_NEAR(safety.weak_experts[0].stack_sqnr_db, 30, 1e-9);
  EXPECT_EQ(safety.weak_experts[1].tensor, "a.weight");
}

}  // namespace
}  // namespace sluice::allocate
