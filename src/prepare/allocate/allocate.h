// The whole of allocation in one call: items and a target in, a Plan out, held against every
// uniform plan. Sees no files; the caller supplies exact sizes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "allocate/plan.h"
#include "allocate/problem.h"
#include "allocate/sensitivity.h"
#include "allocate/solve.h"
#include "base/error.h"

namespace sluice::allocate {

struct BudgetTarget {
  uint64_t bytes = 0;
  std::string unit = {};  // of messages about it: "GiB"; empty: whatever suits the size
};  // at most this on disk, headers included
struct BitsTarget {
  double bits_per_weight = 0;
};  // budget = bits · elements / 8
struct MinSafeTarget {};  // the smallest plan that passes the floors
struct MaxErrorTarget {
  double nrmse = 0;
};  // the smallest with every module's NRMSE ≤ this
struct MaxCostTarget {
  double cost = 0;
};  // the smallest with an objective ≤ this
using Target = std::variant<BudgetTarget, BitsTarget, MinSafeTarget, MaxErrorTarget, MaxCostTarget>;

// What a plan records about its origin.
struct PlanOrigin {
  Digest source;
  Digest analysis;
  std::string family;
  std::string dtype;
  std::string parity = "cpu";
  std::string only_layers;  // "3-5" for a part of a model; empty: the whole
};

struct PlanRequest {
  Target target;
  ProblemSettings settings;
  SensitivityTable sensitivity;  // builtin_sensitivity() unless the user gave one
  PlanOrigin origin;
};

// settings {kNrmseLinear, "mint-v1"} is the compatibility mode: the published weights, candidates
// and greedy order (mint.h) in place of the exact solver, under the same hard budget.
// Errors: kInvalidArgument for a target that cannot be met, naming the smallest feasible size;
// those of build_problem and exact_size.
Result<Plan> make_plan(std::span<const Item> items, const PlanRequest& request,
                       const ExactSize& exact_size);

struct CurvePoint {
  uint64_t bytes = 0;  // Σ of tensors, headers not counted
  double cost = 0;
  double gap = 0;
  double bits_per_weight = 0;
};
// The size/quality curve (--sweep): count ≥ 2 budgets from the smallest plan to the one that
// cannot be improved. Costs never rise. The exact solver whatever the settings.
Result<std::vector<CurvePoint>> budget_curve(std::span<const Item> items,
                                             const ProblemSettings& settings,
                                             const SensitivityTable& sensitivity, size_t count);
// The same under given weights, one α per item, such as those a plan recorded.
Result<std::vector<CurvePoint>> budget_curve(std::span<const Item> items,
                                             const ProblemSettings& settings,
                                             std::span<const double> weights, size_t count);

// Every uniform plan under the same measure, as make_plan records them beside a plan.
Result<std::vector<UniformPlan>> uniform_plans(std::span<const Item> items,
                                               const ProblemSettings& settings,
                                               const SensitivityTable& sensitivity,
                                               const ExactSize& exact_size);

}  // namespace sluice::allocate
