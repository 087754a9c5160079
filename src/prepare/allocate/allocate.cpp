#include "allocate/allocate.h"

#include <algorithm>
#include <cmath>

#include "allocate/mint.h"
#include "allocate/size_text.h"
#include "allocate/uniform.h"
#include "base/checked.h"
#include "base/units.h"

namespace sluice::allocate {
namespace {

bool is_mint(const ProblemSettings& settings) {
  return settings.objective == Objective::kNrmseLinear && settings.configs.name == "mint-v1";
}

// A choice with its size on disk and what is known about better ones.
struct Allocation {
  Choice choice;
  uint64_t exact_bytes = 0;
  uint64_t budget = 0;
};

std::unexpected<Error> too_small(const BudgetTarget& budget, uint64_t smallest) {
  const std::string& unit = budget.unit;
  const auto text = [&](uint64_t bytes) {
    return unit.empty() ? gigabytes_text(bytes) : bytes_text_in(bytes, unit);
  };
  const std::string_view fitting = smallest >= 1'000'000'000 ? "GB" : "MB";
  return fail(ErrorCode::kInvalidArgument,
              "a budget of {} is too small: the smallest plan that passes the safety floors takes "
              "{} ({} bytes on disk). Give at least {}, or use --min-safe",
              text(budget.bytes), text(smallest), smallest,
              size_argument_at_least(smallest, unit.empty() ? fitting : unit));
}

Result<Allocation> within_budget(const Solver& solver, const BudgetTarget& target,
                                 const ExactSize& exact_size) {
  const uint64_t budget = target.bytes;
  Solution solution = solver.smallest();
  SLUICE_ASSIGN(uint64_t exact, exact_size(solution.choice));
  if (exact > budget) return too_small(target, exact);

  // Headers take a few steps more or less with the choice; take off what each try was over.
  uint64_t overhead = exact - solution.bytes;
  constexpr int kTriesMax = 16;
  for (int attempt = 0; attempt < kTriesMax; ++attempt) {
    if (overhead > budget || budget - overhead < solver.bytes_min()) break;
    Solution larger = solver.solve(budget - overhead);
    SLUICE_ASSIGN(const uint64_t larger_exact, exact_size(larger.choice));
    if (larger_exact <= budget) return Allocation{std::move(larger.choice), larger_exact, budget};
    overhead += larger_exact - budget;
  }
  return Allocation{std::move(solution.choice), exact, budget};
}

// The published greedy choice, with its own estimate of sizes lowered until the files fit.
Result<Allocation> mint_within_budget(const Problem& problem, const BudgetTarget& target,
                                      const ExactSize& exact_size) {
  const uint64_t budget = target.bytes;
  const uint64_t model_min = mint_bytes_min(problem);
  MintSolution smallest = solve_mint(problem, model_min);
  SLUICE_ASSIGN(const uint64_t exact_min, exact_size(smallest.choice));
  if (exact_min > budget) return too_small(target, exact_min);
  uint64_t model_budget = budget;
  constexpr int kTriesMax = 64;
  for (int attempt = 0; attempt < kTriesMax && model_budget >= model_min; ++attempt) {
    MintSolution solution = solve_mint(problem, model_budget);
    SLUICE_ASSIGN(const uint64_t exact, exact_size(solution.choice));
    if (exact <= budget) return Allocation{std::move(solution.choice), exact, budget};
    const uint64_t over = exact - budget;
    if (over > model_budget) break;
    model_budget -= over;
  }
  return Allocation{std::move(smallest.choice), exact_min, budget};
}

Result<Allocation> fixed(Solution solution, const ExactSize& exact_size) {
  SLUICE_ASSIGN(const uint64_t exact, exact_size(solution.choice));
  return Allocation{std::move(solution.choice), exact, exact};
}

Result<uint64_t> bits_budget(double bits_per_weight, uint64_t elements) {
  if (!(bits_per_weight > 0 && bits_per_weight <= 64))
    return fail(ErrorCode::kInvalidArgument,
                "{} bits per weight make no budget; give a number between 2 and 16",
                bits_per_weight);
  return static_cast<uint64_t>(bits_per_weight * static_cast<double>(elements) / 8);
}

Result<BudgetTarget> budget_of(const Target& target, uint64_t elements) {
  if (const auto* bits = std::get_if<BitsTarget>(&target)) {
    SLUICE_ASSIGN(const uint64_t bytes, bits_budget(bits->bits_per_weight, elements));
    return BudgetTarget{bytes, ""};
  }
  return std::get<BudgetTarget>(target);
}

Result<Allocation> reach_target(const Solver& solver, std::span<const Item> items,
                                const Target& target, const ExactSize& exact_size) {
  if (std::holds_alternative<MinSafeTarget>(target)) return fixed(solver.smallest(), exact_size);
  if (const auto* error = std::get_if<MaxErrorTarget>(&target)) {
    SLUICE_ASSIGN(Solution solution, solver.smallest_within_nrmse(items, error->nrmse));
    return fixed(std::move(solution), exact_size);
  }
  if (const auto* cost = std::get_if<MaxCostTarget>(&target)) {
    SLUICE_ASSIGN(Solution solution, solver.smallest_within_cost(cost->cost));
    return fixed(std::move(solution), exact_size);
  }
  SLUICE_ASSIGN(const BudgetTarget budget, budget_of(target, solver.problem().elements));
  return within_budget(solver, budget, exact_size);
}

bool is_admissible(const Problem& problem, std::span<const uint32_t> choice) {
  for (size_t i = 0; i < choice.size(); ++i)
    if (problem.find(i, choice[i]) == nullptr) return false;
  return true;
}

struct PricedUniform {
  UniformPlan row;
  Choice choice;
};

Result<std::vector<PricedUniform>> price_uniform(const Problem& problem,
                                                 std::span<const Item> items,
                                                 const ExactSize& exact_size) {
  std::vector<PricedUniform> priced;
  for (UniformChoice& plan : uniform_choices(items)) {
    UniformPlan row;
    row.format = plan.format;
    row.encoder = plan.encoder;
    row.fallback_modules = plan.fallback_modules;
    row.admissible = is_admissible(problem, plan.choice);
    // Sizes follow from formats alone, and `best` comes right after `parity` of the same format.
    if (!priced.empty() && priced.back().row.format == row.format) {
      row.exact_bytes = priced.back().row.exact_bytes;
    } else {
      SLUICE_ASSIGN(row.exact_bytes, exact_size(plan.choice));
    }
    for (size_t i = 0; i < items.size(); ++i)
      row.cost += candidate_cost(problem.objective, problem.alpha[i],
                                 items[i].candidates[plan.choice[i]].error);
    // Inexactly stored zeros have no relative error; such a plan is no yardstick.
    if (!std::isfinite(row.cost)) continue;
    priced.push_back({row, std::move(plan.choice)});
  }
  return priced;
}

// What a budget leaves after the first solution: uniform plans that headers let in by a hair,
// upgrades that fit into the rest, and the optimum for the headers that the plan ended up with.
// Returns the certified bound.
Result<double> improve(const Solver& solver, std::span<const PricedUniform> uniform,
                       const ExactSize& exact_size, Allocation& allocation) {
  const Problem& problem = solver.problem();
  const auto adopt_if_better = [&](const Choice& choice, uint64_t exact) {
    if (exact > allocation.budget ||
        !(choice_cost(problem, choice) < choice_cost(problem, allocation.choice)))
      return false;
    allocation.choice = choice;
    allocation.exact_bytes = exact;
    return true;
  };
  for (const PricedUniform& plan : uniform)
    if (plan.row.admissible) adopt_if_better(plan.choice, plan.row.exact_bytes);
  double bound = 0;
  for (bool better = true; better;) {
    SLUICE_ASSIGN(const PolishResult polished,
                  polish(problem, allocation.budget, exact_size, allocation.choice));
    allocation.exact_bytes = polished.exact_bytes;
    const uint64_t headers = allocation.exact_bytes - choice_bytes(problem, allocation.choice);
    const Solution optimum = solver.solve(allocation.budget - headers);
    bound = optimum.bound;
    SLUICE_ASSIGN(const uint64_t exact, exact_size(optimum.choice));
    better = adopt_if_better(optimum.choice, exact);
  }
  return bound;
}

bool has_budget(const Target& target) {
  return std::holds_alternative<BudgetTarget>(target) || std::holds_alternative<BitsTarget>(target);
}

// A plan's choice and the two figures that describe how good it is.
struct Chosen {
  Allocation allocation;
  double bound = 0;
  std::vector<PricedUniform> uniform;
};

Result<Chosen> choose_exact(const Problem& problem, std::span<const Item> items,
                            const Target& target, const ExactSize& exact_size) {
  Chosen chosen;
  SLUICE_ASSIGN(const Solver solver, Solver::create(problem));
  SLUICE_ASSIGN(chosen.allocation, reach_target(solver, items, target, exact_size));
  SLUICE_ASSIGN(chosen.uniform, price_uniform(problem, items, exact_size));
  if (has_budget(target)) {
    SLUICE_ASSIGN(chosen.bound, improve(solver, chosen.uniform, exact_size, chosen.allocation));
  } else {
    chosen.bound = solver.solve(choice_bytes(problem, chosen.allocation.choice)).bound;
  }
  return chosen;
}

Result<Chosen> choose_mint(const Problem& problem, std::span<const Item> items,
                           const Target& target, const ExactSize& exact_size) {
  Chosen chosen;
  if (has_budget(target)) {
    SLUICE_ASSIGN(const BudgetTarget budget, budget_of(target, problem.elements));
    SLUICE_ASSIGN(chosen.allocation, mint_within_budget(problem, budget, exact_size));
  } else if (std::holds_alternative<MinSafeTarget>(target)) {
    Allocation& allocation = chosen.allocation;
    allocation.choice = solve_mint(problem, mint_bytes_min(problem)).choice;
    SLUICE_ASSIGN(allocation.exact_bytes, exact_size(allocation.choice));
    allocation.budget = allocation.exact_bytes;
  } else {
    return fail(ErrorCode::kInvalidArgument,
                "the published method (nrmse-linear with mint-v1) takes a budget, bits per weight "
                "or --min-safe, not an error limit");
  }
  SLUICE_ASSIGN(chosen.uniform, price_uniform(problem, items, exact_size));
  // The greedy pass has no bound of its own; the exact solver supplies one for the same problem.
  SLUICE_ASSIGN(const Solver solver, Solver::create(problem));
  chosen.bound = solver.solve(choice_bytes(problem, chosen.allocation.choice)).bound;
  return chosen;
}

// Measured sensitivities, which are in nats, say what an encoder's errors come to.
ProblemSettings under(ProblemSettings settings, const SensitivityTable& sensitivity) {
  settings.floor_by_encoder = sensitivity.in_nats;
  return settings;
}

}  // namespace

Result<Plan> make_plan(std::span<const Item> items, const PlanRequest& request,
                       const ExactSize& exact_size) {
  const bool mint = is_mint(request.settings);
  const std::vector<double> weights =
      mint ? mint_weights(items) : module_weights(request.sensitivity, items);
  const ProblemSettings settings = under(request.settings, request.sensitivity);
  SLUICE_ASSIGN(const Problem problem, mint ? mint_problem(items, settings.sqnr_floor_db)
                                            : build_problem(items, weights, settings));
  SLUICE_ASSIGN(const Chosen chosen,
                mint ? choose_mint(problem, items, request.target, exact_size)
                     : choose_exact(problem, items, request.target, exact_size));
  const Allocation& allocation = chosen.allocation;

  PlanData data;
  data.budget_bytes = allocation.budget;
  data.exact_bytes = allocation.exact_bytes;
  data.elements = problem.elements;
  data.objective = objective_name(request.settings.objective);
  data.method = mint ? "mint-greedy" : "exact";
  data.configs = request.settings.configs.name;
  data.sensitivity = mint ? "mint" : request.sensitivity.id();
  data.sqnr_floor_db = request.settings.sqnr_floor_db;
  data.source = request.origin.source;
  data.analysis = request.origin.analysis;
  data.family = request.origin.family;
  data.dtype = request.origin.dtype;
  data.parity = request.origin.parity;
  data.only_layers = request.origin.only_layers;
  data.cost = choice_cost(problem, allocation.choice);
  data.bound = std::min(chosen.bound, data.cost);
  data.tensors.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const Candidate& candidate = item.candidates[allocation.choice[i]];
    const auto sum = checked_add(data.tensor_bytes, candidate.bytes);
    if (!sum) return fail(ErrorCode::kCorrupt, "{}: module sizes overflow", item.path);
    data.tensor_bytes = *sum;
    data.tensors.push_back({item.path, item.parameter, item.role, item.layer, item.elements,
                            item.quantizable, candidate.format, candidate.encoder, candidate.bytes,
                            problem.alpha[i], candidate.error, candidate.worst_expert_sqnr_db,
                            candidate.worst_expert, item.source});
  }
  for (const PricedUniform& plan : chosen.uniform) data.uniform.push_back(plan.row);
  if (!mint && request.sensitivity.in_nats) data.predicted_kl = squared_cost(data.tensors);
  return Plan::create(std::move(data));
}

Result<std::vector<CurvePoint>> budget_curve(std::span<const Item> items,
                                             const ProblemSettings& settings,
                                             const SensitivityTable& sensitivity, size_t count) {
  return budget_curve(items, under(settings, sensitivity), module_weights(sensitivity, items),
                      count);
}

Result<std::vector<CurvePoint>> budget_curve(std::span<const Item> items,
                                             const ProblemSettings& settings,
                                             std::span<const double> weights, size_t count) {
  if (count < 2 || count > 10'000)
    return fail(ErrorCode::kInvalidArgument, "a curve takes 2 to 10000 points, not {}", count);
  SLUICE_ASSIGN(Problem problem, build_problem(items, weights, settings));
  const double elements = static_cast<double>(problem.elements);
  SLUICE_ASSIGN(const Solver solver, Solver::create(std::move(problem)));
  std::vector<CurvePoint> curve;
  for (const Solution& solution : solver.sweep(count))
    curve.push_back({solution.bytes, solution.cost, solution.gap(),
                     elements > 0 ? 8 * static_cast<double>(solution.bytes) / elements : 0});
  return curve;
}

Result<std::vector<UniformPlan>> uniform_plans(std::span<const Item> items,
                                               const ProblemSettings& settings,
                                               const SensitivityTable& sensitivity,
                                               const ExactSize& exact_size) {
  SLUICE_ASSIGN(const Problem problem, build_problem(items, module_weights(sensitivity, items),
                                                     under(settings, sensitivity)));
  SLUICE_ASSIGN(const std::vector<PricedUniform> priced, price_uniform(problem, items, exact_size));
  std::vector<UniformPlan> plans;
  for (const PricedUniform& plan : priced) plans.push_back(plan.row);
  return plans;
}

}  // namespace sluice::allocate
