// make_plan as a whole: budgets on disk, targets, messages, uniform plans, the compatibility mode.
#include "allocate/allocate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allocate/mint.h"
#include "allocate/synthetic.h"
#include "base/units.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantMode;
using ::testing::HasSubstr;

// Sizes as the output's layout gives them: 5 GiB shards filled in order, headers of about 100 bytes
// per tensor padded to 16 KiB.
class FolderSize {
 public:
  explicit FolderSize(const std::vector<Item>& items) : items_(items) {}
  uint64_t operator()(std::span<const uint32_t> choice) const {
    constexpr uint64_t kShard = 5ull << 30;
    uint64_t total = 0, data = 0, header = 0;
    const auto close = [&] {
      total += data + (header + 60 + 16383) / 16384 * 16384;
      data = header = 0;
    };
    for (size_t i = 0; i < items_.size(); ++i) {
      const Candidate& chosen = items_[i].candidates[choice[i]];
      if (data > 0 && data + chosen.bytes > kShard) close();
      data += chosen.bytes;
      const uint64_t tensors = chosen.format.mode == QuantMode::kFloat ? 1 : 3;
      header += tensors * (items_[i].path.size() + 85);
    }
    close();
    return total;
  }
  ExactSize function() const {
    return [this](std::span<const uint32_t> choice) -> Result<uint64_t> { return (*this)(choice); };
  }

 private:
  const std::vector<Item>& items_;
};

PlanRequest request_for(Target target) {
  PlanRequest request;
  request.target = target;
  request.sensitivity = builtin_sensitivity();
  request.origin = {digest_of("source"), digest_of("analysis"), "qwen3", "bfloat16", "cpu", ""};
  return request;
}

// The candidate indices of a plan.
Choice choice_of(const Plan& plan, const std::vector<Item>& items) {
  Choice choice;
  for (size_t i = 0; i < items.size(); ++i) {
    const PlannedTensor& tensor = plan.data().tensors[i];
    for (uint32_t j = 0; j < items[i].candidates.size(); ++j)
      if (items[i].candidates[j].format == tensor.format &&
          items[i].candidates[j].encoder == tensor.encoder)
        choice.push_back(j);
  }
  EXPECT_EQ(choice.size(), items.size());
  return choice;
}

struct Model {
  const char* name;
  synthetic::ModelShape shape;
};

class MakePlan : public ::testing::TestWithParam<Model> {
 protected:
  std::vector<Item> items_ = synthetic::model_items(GetParam().shape, 11);
  FolderSize size_{items_};
};

INSTANTIATE_TEST_SUITE_P(Models, MakePlan,
                         ::testing::Values(Model{"qwen3_8b", synthetic::kQwen3_8B},
                                           Model{"qwen3_30b_a3b", synthetic::kQwen3_30B_A3B},
                                           Model{"smollm2_135m", synthetic::kSmolLM2_135M}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST_P(MakePlan, TwentyBudgetsAreKeptAndUsedUp) {
  const Plan smallest = *make_plan(items_, request_for(MinSafeTarget{}), size_.function());
  const Problem problem = *build_problem(items_, module_weights(builtin_sensitivity(), items_), {});
  double before = std::numeric_limits<double>::infinity();
  for (int k = 0; k < 20; ++k) {
    const uint64_t budget =
        smallest.data().exact_bytes + smallest.data().exact_bytes / 10 * static_cast<uint64_t>(k);
    const auto plan = make_plan(items_, request_for(BudgetTarget{budget}), size_.function());
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    const PlanData& data = plan->data();
    EXPECT_LE(data.exact_bytes, budget);
    EXPECT_EQ(data.budget_bytes, budget);
    EXPECT_LE(data.gap(), 1e-4);
    EXPECT_LE(data.cost, before * (1 + 1e-12));
    before = data.cost;

    Choice choice = choice_of(*plan, items_);
    ASSERT_EQ(size_(choice), data.exact_bytes);
    for (size_t i = 0; i < choice.size(); ++i) {
      const uint32_t old = choice[i];
      const double cost = problem.find(i, old)->cost;
      for (const Option& option : problem.options_of(i)) {
        if (!(option.cost < cost)) continue;
        choice[i] = option.candidate;
        EXPECT_GT(size_(choice), budget) << items_[i].path;
      }
      choice[i] = old;
    }
    size_t compared = 0;
    for (const UniformPlan& uniform : data.uniform) {
      if (!uniform.admissible || uniform.exact_bytes > budget) continue;
      EXPECT_LE(data.cost, uniform.cost);
      ++compared;
    }
    EXPECT_EQ(data.uniform.size(), 20u);
    if (k == 19) {
      EXPECT_GT(compared, 3u);
    }
  }
}

TEST_P(MakePlan, FloorsHoldInEveryTensor) {
  const Plan plan = *make_plan(items_, request_for(MinSafeTarget{}), size_.function());
  EXPECT_EQ(plan.data().budget_bytes, plan.data().exact_bytes);
  EXPECT_EQ(plan.data().gap(), 0);
  const Choice choice = choice_of(plan, items_);
  for (size_t i = 0; i < items_.size(); ++i) {
    EXPECT_TRUE(passes_floor(items_[i], items_[i].candidates[choice[i]], {}));
    if (items_[i].role == "router") {
      EXPECT_TRUE(plan.data().tensors[i].format.bits >= 8 ||
                  plan.data().tensors[i].format.mode == QuantMode::kFloat);
    }
    // Nothing smaller would have been safe.
    for (const Candidate& candidate : items_[i].candidates)
      if (candidate.bytes < plan.data().tensors[i].bytes &&
          candidate.format.bits >= items_[i].bits_floor) {
        EXPECT_FALSE(passes_floor(items_[i], candidate, {})) << items_[i].path;
      }
  }
}

TEST_P(MakePlan, TooSmallABudgetNamesTheSmallestFeasibleOne) {
  const Plan smallest = *make_plan(items_, request_for(MinSafeTarget{}), size_.function());
  const uint64_t bytes = smallest.data().exact_bytes;
  const auto plan = make_plan(items_, request_for(BudgetTarget{bytes - 1}), size_.function());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(plan.error().message, HasSubstr(fmt::format("{} bytes on disk", bytes)));
  EXPECT_THAT(plan.error().message, HasSubstr(" GB "));
  const auto in_unit =
      make_plan(items_, request_for(BudgetTarget{bytes - 1, "MiB"}), size_.function());
  EXPECT_THAT(in_unit.error().message, HasSubstr(bytes_text_in(bytes, "MiB") + " ("));
  EXPECT_THAT(in_unit.error().message, HasSubstr(size_argument_at_least(bytes, "MiB") + ","));
  const auto exact = make_plan(items_, request_for(BudgetTarget{bytes}), size_.function());
  ASSERT_TRUE(exact.has_value());
  EXPECT_EQ(exact->data().exact_bytes, bytes);
  EXPECT_FALSE(make_plan(items_, request_for(BudgetTarget{0}), size_.function()).has_value());
}

TEST_P(MakePlan, BitsPerWeightMakeABudget) {
  const Plan plan = *make_plan(items_, request_for(BitsTarget{5.5}), size_.function());
  EXPECT_LE(bits_per_weight(plan), 5.5);
  EXPECT_GT(bits_per_weight(plan), 5.4);
  EXPECT_LE(8.0 * static_cast<double>(plan.data().exact_bytes),
            5.5 * static_cast<double>(plan.data().elements));
  for (const double bits : {0.0, -1.0, 65.0, std::nan("")})
    EXPECT_FALSE(make_plan(items_, request_for(BitsTarget{bits}), size_.function()).has_value());
}

TEST_P(MakePlan, MaxErrorBoundsEveryModule) {
  const Plan plan = *make_plan(items_, request_for(MaxErrorTarget{0.05}), size_.function());
  for (const PlannedTensor& tensor : plan.data().tensors)
    EXPECT_LE(nrmse_squared(tensor.error), 0.05 * 0.05 * (1 + 1e-12));
  const Plan tighter = *make_plan(items_, request_for(MaxErrorTarget{0.01}), size_.function());
  EXPECT_GT(tighter.data().exact_bytes, plan.data().exact_bytes);
}

TEST_P(MakePlan, MaxCostBoundsTheObjective) {
  const Plan middle = *make_plan(items_, request_for(BitsTarget{5}), size_.function());
  const Plan plan =
      *make_plan(items_, request_for(MaxCostTarget{middle.data().cost}), size_.function());
  EXPECT_LE(plan.data().cost, middle.data().cost);
  EXPECT_LE(plan.data().tensor_bytes, middle.data().tensor_bytes);
  EXPECT_FALSE(make_plan(items_, request_for(MaxCostTarget{-1}), size_.function()).has_value());
}

TEST_P(MakePlan, MeasuredSensitivitiesPredictTheDivergence) {
  PlanRequest request = request_for(BitsTarget{5});
  EXPECT_FALSE(make_plan(items_, request, size_.function())->data().predicted_kl.has_value());
  request.sensitivity.in_nats = true;
  const Plan plan = *make_plan(items_, request, size_.function());
  ASSERT_TRUE(plan.data().predicted_kl.has_value());
  EXPECT_DOUBLE_EQ(*plan.data().predicted_kl, plan.data().cost);
  request.settings.objective = Objective::kNrmseLinear;
  const Plan linear = *make_plan(items_, request, size_.function());
  ASSERT_TRUE(linear.data().predicted_kl.has_value());
  EXPECT_GE(*linear.data().predicted_kl, *plan.data().predicted_kl * (1 - 1e-9));
  EXPECT_NE(*linear.data().predicted_kl, linear.data().cost);
}

TEST_P(MakePlan, SameInputSameFile) {
  const auto text = [&] {
    return plan_to_json(*make_plan(items_, request_for(BitsTarget{4.5}), size_.function()));
  };
  EXPECT_EQ(text(), text());
}

TEST_P(MakePlan, CompatibilityModeKeepsTheBudgetAndLosesToTheExactSolver) {
  PlanRequest greedy = request_for(MinSafeTarget{});
  greedy.settings.objective = Objective::kNrmseLinear;
  greedy.settings.configs = *parse_configs("mint-v1");
  const Plan smallest = *make_plan(items_, greedy, size_.function());
  const uint64_t budget = smallest.data().exact_bytes * 5 / 4;
  greedy.target = BudgetTarget{budget};
  const Plan plan = *make_plan(items_, greedy, size_.function());
  EXPECT_EQ(plan.data().method, "mint-greedy");
  EXPECT_LE(plan.data().exact_bytes, budget);
  EXPECT_GE(plan.data().cost, plan.data().bound);
  for (const PlannedTensor& tensor : plan.data().tensors) {
    EXPECT_NE(tensor.encoder, Encoder::kBest);
    EXPECT_TRUE(tensor.format.bits != 5 && tensor.format.bits != 6);
  }

  // Under the squared objective, the same bytes buy less error from the exact solver.
  const Plan ours = *make_plan(items_, request_for(BudgetTarget{budget}), size_.function());
  const std::vector<double> weights = module_weights(builtin_sensitivity(), items_);
  double greedy_cost = 0;
  for (size_t i = 0; i < items_.size(); ++i)
    greedy_cost +=
        candidate_cost(Objective::kNrmseSquared, weights[i], plan.data().tensors[i].error);
  EXPECT_LT(ours.data().cost, greedy_cost);

  greedy.target = BudgetTarget{smallest.data().exact_bytes - 1};
  const auto refused = make_plan(items_, greedy, size_.function());
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("too small"));
  greedy.target = MaxErrorTarget{0.1};
  EXPECT_FALSE(make_plan(items_, greedy, size_.function()).has_value());
}

TEST_P(MakePlan, LinearObjectiveWithAllFormatsUsesTheExactSolver) {
  PlanRequest request = request_for(BitsTarget{5});
  request.settings.objective = Objective::kNrmseLinear;
  const Plan plan = *make_plan(items_, request, size_.function());
  EXPECT_EQ(plan.data().method, "exact");
  EXPECT_EQ(plan.data().objective, "nrmse-linear");
}

TEST_P(MakePlan, CurveFallsAndAgreesWithPlans) {
  const auto curve = budget_curve(items_, {}, builtin_sensitivity(), 50);
  ASSERT_TRUE(curve.has_value());
  ASSERT_EQ(curve->size(), 50u);
  for (size_t i = 1; i < curve->size(); ++i) {
    EXPECT_LE((*curve)[i].cost, (*curve)[i - 1].cost);
    EXPECT_GE((*curve)[i].bytes, (*curve)[i - 1].bytes);
  }
  EXPECT_EQ(curve->back().cost, 0);
  EXPECT_FALSE(budget_curve(items_, {}, builtin_sensitivity(), 1).has_value());
}

TEST(MakePlanErrors, SizeErrorsArePassedOn) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kSmolLM2_135M, 1);
  const ExactSize broken = [](std::span<const uint32_t>) -> Result<uint64_t> {
    return fail(ErrorCode::kCorrupt, "no layout");
  };
  for (const Target& target :
       {Target{BudgetTarget{1ull << 40}}, Target{MinSafeTarget{}}, Target{MaxErrorTarget{0.1}}}) {
    const auto plan = make_plan(items, request_for(target), broken);
    ASSERT_FALSE(plan.has_value());
    EXPECT_EQ(plan.error().message, "no layout");
  }
}

// 18,771 items, headers of three megabytes: the size of the largest unstacked models.
TEST(MakePlanLarge, ManyItemsTakeSeconds) {
  synthetic::ModelShape shape = synthetic::kQwen3_30B_A3B;
  shape.stacked = false;
  const std::vector<Item> items = synthetic::model_items(shape, 3);
  const FolderSize size(items);
  const Plan plan = *make_plan(items, request_for(BudgetTarget{16'000'000'000}), size.function());
  EXPECT_LE(plan.data().exact_bytes, 16'000'000'000u);
  EXPECT_GT(plan.data().exact_bytes, 15'999'000'000u);
  EXPECT_LE(plan.data().gap(), 1e-4);
}

}  // namespace
}  // namespace sluice::allocate
