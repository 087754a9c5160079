// The exact solver against brute force, its certificates, and polishing against exact sizes.
#include "allocate/solve.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "allocate/sensitivity.h"
#include "allocate/synthetic.h"

namespace sluice::allocate {
namespace {

using synthetic::Random;
using synthetic::Shape;

constexpr uint64_t kSeed = 20260917;

// Walks every choice; calls visit(bytes, cost).
template <class Visit>
void enumerate(const Problem& problem, size_t item, uint64_t bytes, double cost,
               const Visit& visit) {
  if (item == problem.item_count()) return visit(bytes, cost);
  for (const Option& option : problem.options_of(item))
    enumerate(problem, item + 1, bytes + option.bytes, cost + option.cost, visit);
}

struct Exhaustive {
  std::vector<std::pair<uint64_t, double>> choices;  // bytes, cost
  explicit Exhaustive(const Problem& problem) {
    enumerate(problem, 0, 0, 0,
              [&](uint64_t bytes, double cost) { choices.push_back({bytes, cost}); });
  }
  std::optional<double> least_cost(uint64_t budget) const {
    std::optional<double> best;
    for (const auto& [bytes, cost] : choices)
      if (bytes <= budget && (!best || cost < *best)) best = cost;
    return best;
  }
  std::optional<uint64_t> least_bytes(double cost_max) const {
    std::optional<uint64_t> best;
    for (const auto& [bytes, cost] : choices)
      if (cost <= cost_max && (!best || bytes < *best)) best = bytes;
    return best;
  }
};

void expect_consistent(const Problem& problem, const Solution& solution) {
  ASSERT_EQ(solution.choice.size(), problem.item_count());
  EXPECT_EQ(solution.bytes, choice_bytes(problem, solution.choice));
  EXPECT_EQ(solution.cost, choice_cost(problem, solution.choice));
  EXPECT_LE(solution.bound, solution.cost);
}

TEST(Solver, EqualsBruteForceOnSmallProblems) {
  Random random(kSeed);
  for (int round = 0; round < 20000; ++round) {
    const Shape shape = static_cast<Shape>(round % 3);
    const Problem problem = synthetic::random_problem(random, 1 + random.below(6), 5, shape);
    const Exhaustive all(problem);
    const Solver solver = *Solver::create(problem);
    for (int k = 0; k < 6; ++k) {
      const uint64_t span = solver.bytes_max() - solver.bytes_min();
      const uint64_t budget = solver.bytes_min() + random.below(span + 10);
      const Solution solution = solver.solve(budget);
      expect_consistent(problem, solution);
      ASSERT_LE(solution.bytes, budget);
      const double best = *all.least_cost(budget);
      ASSERT_NEAR(solution.cost, best, 1e-12 * (1 + best))
          << "seed " << kSeed << " round " << round;
      ASSERT_EQ(solution.gap(), 0) << "seed " << kSeed << " round " << round;
    }
  }
}

TEST(Solver, SmallestIsSmallestAndCheapestOfThose) {
  Random random(kSeed + 1);
  for (int round = 0; round < 1000; ++round) {
    const Problem problem =
        synthetic::random_problem(random, 1 + random.below(5), 5, Shape::kCoarse);
    const Exhaustive all(problem);
    const Solver solver = *Solver::create(problem);
    const Solution smallest = solver.smallest();
    uint64_t least = UINT64_MAX;
    for (const auto& choice : all.choices) least = std::min(least, choice.first);
    ASSERT_EQ(smallest.bytes, least);
    ASSERT_EQ(solver.bytes_min(), least);
    ASSERT_EQ(smallest.cost, *all.least_cost(least));
    ASSERT_EQ(solver.solve(least).cost, smallest.cost);
  }
}

TEST(Solver, SmallestWithinCostEqualsBruteForce) {
  Random random(kSeed + 2);
  for (int round = 0; round < 1500; ++round) {
    const Problem problem =
        synthetic::random_problem(random, 1 + random.below(5), 5, static_cast<Shape>(round % 3));
    const Exhaustive all(problem);
    const Solver solver = *Solver::create(problem);
    const double high = solver.smallest().cost;
    const double low = solver.solve(solver.bytes_max()).cost;
    const double limit = low + (high - low) * random.uniform() * 1.1 + 1e-9;
    const auto solution = solver.smallest_within_cost(limit);
    ASSERT_TRUE(solution.has_value());
    ASSERT_LE(solution->cost, limit);
    ASSERT_EQ(solution->bytes, *all.least_bytes(limit)) << "seed " << kSeed << " round " << round;
    if (low > 0) {
      const auto impossible = solver.smallest_within_cost(low * 0.5);
      ASSERT_FALSE(impossible.has_value());
      EXPECT_EQ(impossible.error().code, ErrorCode::kInvalidArgument);
    }
  }
}

TEST(Solver, MoreBudgetNeverCostsMore) {
  Random random(kSeed + 3);
  for (int round = 0; round < 40; ++round) {
    const Problem problem =
        synthetic::random_problem(random, 40, 12, static_cast<Shape>(round % 3));
    const Solver solver = *Solver::create(problem);
    double before = std::numeric_limits<double>::infinity();
    for (uint64_t budget = solver.bytes_min(); budget < solver.bytes_max() + 50; budget += 37) {
      const Solution solution = solver.solve(budget);
      ASSERT_LE(solution.bytes, budget);
      ASSERT_LE(solution.cost, before * (1 + 1e-12)) << "seed " << kSeed << " round " << round;
      ASSERT_EQ(solution.gap(), 0);
      before = solution.cost;
    }
  }
}

TEST(Solver, SameInputSamePlanAndOrderOfBudgetsDoesNotMatter) {
  Random random(kSeed + 4);
  const Problem problem = synthetic::random_problem(random, 300, 15, Shape::kCorrelated);
  const Solver first = *Solver::create(problem);
  const Solver second = *Solver::create(problem);
  const uint64_t span = first.bytes_max() - first.bytes_min();
  std::vector<Choice> choices;
  for (uint64_t k = 0; k <= 20; ++k)
    choices.push_back(first.solve(first.bytes_min() + span * k / 20).choice);
  for (uint64_t k = 21; k-- > 0;)
    EXPECT_EQ(second.solve(first.bytes_min() + span * k / 20).choice, choices[k]);
}

// The digest of one plan, fixed: a change of compiler, library or machine must not change it.
TEST(Solver, PlanIsTheSameOnEveryMachine) {
  Random random(99);
  Problem problem;
  problem.first.push_back(0);
  for (int i = 0; i < 500; ++i) {
    for (uint32_t j = 0; j < 8; ++j) {
      const uint64_t bytes = (j + 1) * (1000 + random.below(500));
      const double numerator = 1 + random.uniform();
      const double cost = numerator / static_cast<double>((1u << j) + random.below(4));
      problem.options.push_back({bytes, cost, j});
    }
    problem.first.push_back(static_cast<uint32_t>(problem.options.size()));
    problem.alpha.push_back(1);
  }
  const Solver solver = *Solver::create(problem);
  const Solution solution = solver.solve((solver.bytes_min() + solver.bytes_max()) / 2);
  std::string text;
  for (const uint32_t j : solution.choice) text.push_back(static_cast<char>('0' + j));
  EXPECT_EQ(digest_of(text).hex(), "f8243c66ea1f28e9ee47624a81c843b6");
}

TEST(Solver, RealModelShapesAreSolvedToOptimality) {
  for (const synthetic::ModelShape& shape :
       {synthetic::kQwen3_8B, synthetic::kQwen3_30B_A3B, synthetic::kSmolLM2_135M}) {
    const std::vector<Item> items = synthetic::model_items(shape, kSeed);
    const auto problem = build_problem(items, module_weights(builtin_sensitivity(), items), {});
    ASSERT_TRUE(problem.has_value()) << problem.error().message;
    const Solver solver = *Solver::create(*problem);
    const uint64_t span = solver.bytes_max() - solver.bytes_min();
    for (uint64_t k = 0; k < 25; ++k) {
      const uint64_t budget = solver.bytes_min() + span / 25 * k;
      const Solution solution = solver.solve(budget);
      EXPECT_LE(solution.bytes, budget);
      EXPECT_LE(solution.gap(), 1e-4) << "point " << k;
    }
  }
}

// Thousands of modules of few shapes: sizes come in coarse steps, and close to the lossless end the
// whole cost is so small that only a complete proof leaves no visible gap.
TEST(Solver, UnstackedExpertsAreSolvedToOptimalityUpToTheLosslessEnd) {
  synthetic::ModelShape shape = synthetic::kQwen3_30B_A3B;
  shape.stacked = false;
  const std::vector<Item> items = synthetic::model_items(shape, 7);
  const Solver solver =
      *Solver::create(*build_problem(items, module_weights(builtin_sensitivity(), items), {}));
  const uint64_t span = solver.bytes_max() - solver.bytes_min();
  for (const uint64_t point : {1, 20, 60, 100, 150, 180, 194, 198}) {
    const uint64_t budget = solver.bytes_min() + span / 199 * point;
    const Solution solution = solver.solve(budget);
    EXPECT_LE(solution.bytes, budget);
    EXPECT_LE(solution.gap(), 1e-4) << "point " << point;
  }
}

TEST(Solver, SweepNeverRises) {
  Random random(kSeed + 5);
  const Problem problem = synthetic::random_problem(random, 200, 10, Shape::kCorrelated);
  const Solver solver = *Solver::create(problem);
  const std::vector<Solution> curve = solver.sweep(50);
  ASSERT_EQ(curve.size(), 50u);
  EXPECT_EQ(curve.front().bytes, solver.bytes_min());
  EXPECT_EQ(curve.back().bytes, solver.bytes_max());
  for (size_t i = 1; i < curve.size(); ++i) {
    EXPECT_LE(curve[i].cost, curve[i - 1].cost);
    expect_consistent(problem, curve[i]);
  }
}

TEST(Solver, SweepOfAProblemWithoutChoices) {
  Random random(1);
  const Problem problem = synthetic::random_problem(random, 3, 1, Shape::kRandom);
  const std::vector<Solution> curve = Solver::create(problem)->sweep(2);
  EXPECT_EQ(curve[0].bytes, curve[1].bytes);
}

TEST(Solver, SizesThatOverflowAreRefused) {
  Problem problem;
  problem.first = {0, 1, 2};
  problem.options = {{UINT64_MAX / 2, 1, 0}, {UINT64_MAX / 2, 1, 0}};
  problem.alpha = {1, 1};
  const auto solver = Solver::create(problem);
  ASSERT_FALSE(solver.has_value());
  EXPECT_EQ(solver.error().code, ErrorCode::kInvalidArgument);
}

TEST(Solver, NoItemsAreRefused) {
  Problem problem;
  problem.first = {0};
  EXPECT_FALSE(Solver::create(problem).has_value());
}

TEST(SmallestWithinNrmse, TakesTheSmallestAdmissibleFormatOfEachModule) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kSmolLM2_135M, 3);
  const Problem problem = *build_problem(items, module_weights(builtin_sensitivity(), items), {});
  const Solver solver = *Solver::create(problem);
  const double limit = 0.05;
  const auto solution = solver.smallest_within_nrmse(items, limit);
  ASSERT_TRUE(solution.has_value());
  for (size_t i = 0; i < items.size(); ++i) {
    const Candidate& chosen = items[i].candidates[solution->choice[i]];
    EXPECT_LE(std::sqrt(nrmse_squared(chosen.error)), limit);
    for (const Option& option : problem.options_of(i)) {
      const auto& error = items[i].candidates[option.candidate].error;
      EXPECT_TRUE(option.bytes >= chosen.bytes || std::sqrt(nrmse_squared(error)) > limit);
    }
  }
  EXPECT_TRUE(solver.smallest_within_nrmse(items, 0).has_value());  // everything 16-bit

  ProblemSettings settings;
  settings.configs = *parse_configs("4/64");
  const Solver narrow = *Solver::create(
      *build_problem(items, module_weights(builtin_sensitivity(), items), settings));
  const auto impossible = narrow.smallest_within_nrmse(items, 0.001);
  ASSERT_FALSE(impossible.has_value());
  EXPECT_EQ(impossible.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(impossible.error().message.find("model.embed_tokens.weight"), std::string::npos);
}

// A size function like a safetensors folder's: a header per started shard, padded to 16 KiB.
uint64_t padded_size(const Problem& problem, std::span<const uint32_t> choice, uint64_t shard) {
  const uint64_t bytes = choice_bytes(problem, choice);
  uint64_t header = 100;
  for (size_t i = 0; i < choice.size(); ++i) header += 90 + 140 * (choice[i] % 3);
  const uint64_t files = bytes / shard + 1;
  return bytes + files * ((header / files + 16383) / 16384 * 16384);
}

TEST(Polish, LeavesNoSingleUpgradeThatFits) {
  Random random(kSeed + 6);
  for (int round = 0; round < 60; ++round) {
    Problem problem = synthetic::random_problem(random, 60, 8, Shape::kCorrelated);
    for (Option& option : problem.options) option.bytes *= 100;
    const Solver solver = *Solver::create(problem);
    const ExactSize exact = [&](std::span<const uint32_t> choice) -> Result<uint64_t> {
      return padded_size(problem, choice, 400'000);
    };
    Choice choice = solver.smallest().choice;
    const uint64_t budget =
        *exact(choice) + random.below(solver.bytes_max() - solver.bytes_min() + 1);
    const auto polished = polish(problem, budget, exact, choice);
    ASSERT_TRUE(polished.has_value());
    EXPECT_TRUE(polished->complete);
    ASSERT_LE(polished->exact_bytes, budget);
    ASSERT_EQ(polished->exact_bytes, *exact(choice));
    for (size_t i = 0; i < choice.size(); ++i) {
      const double cost = problem.find(i, choice[i])->cost;
      for (const Option& option : problem.options_of(i)) {
        if (!(option.cost < cost)) continue;
        Choice changed = choice;
        changed[i] = option.candidate;
        EXPECT_GT(*exact(changed), budget) << "seed " << kSeed << " round " << round;
      }
    }
  }
}

TEST(Polish, PassesErrorsOn) {
  Random random(5);
  const Problem problem = synthetic::random_problem(random, 3, 3, Shape::kRandom);
  Choice choice(3, 0);
  const ExactSize broken = [](std::span<const uint32_t>) -> Result<uint64_t> {
    return fail(ErrorCode::kCorrupt, "no sizes today");
  };
  const auto polished = polish(problem, 100, broken, choice);
  ASSERT_FALSE(polished.has_value());
  EXPECT_EQ(polished.error().message, "no sizes today");
}

}  // namespace
}  // namespace sluice::allocate
