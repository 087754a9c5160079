// Exact solution of the multiple-choice knapsack: the choice of least cost within a byte budget,
// with a lower bound that certifies how far from optimal it can be. Pure integers and doubles with
// + − × ÷ and comparisons, ties broken by index: the same plan on every machine.
// Method and proof of the bound: docs/allocation.md#solver
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "allocate/problem.h"
#include "base/error.h"

namespace sluice::allocate {

struct Solution {
  Choice choice;
  uint64_t bytes = 0;  // Σ of the chosen options
  double cost = 0;     // Σ in item order
  double bound = 0;    // no choice within the budget costs less; ≤ cost
  // (cost − bound) / cost; 0 when proved optimal.
  double gap() const { return cost > bound ? (cost - bound) / cost : 0; }
};

// Value; const methods are thread-safe. Reduces a problem once (dominated options dropped, convex
// hulls, steps sorted by gain per byte) and then answers any number of budgets.
class Solver {
 public:
  // Errors: kInvalidArgument when sizes overflow or the problem is empty.
  static Result<Solver> create(Problem problem);

  const Problem& problem() const { return problem_; }
  uint64_t bytes_min() const { return bytes_min_; }  // of the smallest choice
  uint64_t bytes_max() const { return bytes_max_; }  // beyond this nothing improves

  // Requires budget ≥ bytes_min(). With gap() 0 for both, a larger budget never costs more.
  Solution solve(uint64_t budget) const;
  // The smallest choice; of several as small, the one that costs least (--min-safe).
  Solution smallest() const;

  // The smallest choice of a cost ≤ cost_max: exact whenever the solves behind it are.
  // Errors: kInvalidArgument naming the least cost that can be reached.
  Result<Solution> smallest_within_cost(double cost_max) const;
  // The smallest choice in which no module's NRMSE exceeds nrmse_max (--max-error).
  // Errors: kInvalidArgument naming the first module's item index that cannot.
  Result<Solution> smallest_within_nrmse(std::span<const Item> items, double nrmse_max) const;

  // count ≥ 2 budgets evenly spaced from bytes_min() to bytes_max(), ends included; costs never
  // rise along the curve.
  std::vector<Solution> sweep(size_t count) const;

 private:
  struct ReducedOption {
    uint64_t bytes;
    double cost;
    uint32_t candidate;
  };
  // From one hull vertex of an item to the next.
  struct Step {
    double slope;  // cost saved per byte, > 0
    uint64_t bytes;
    uint32_t item;
    uint32_t to;  // index into reduced_
  };
  friend class CoreSearch;

  Solver() = default;
  Solution finish(std::span<const uint32_t> reduced_choice) const;

  Problem problem_;
  std::vector<uint32_t> reduced_first_;
  std::vector<ReducedOption> reduced_;  // per item: bytes rise, costs fall strictly
  std::vector<Step> steps_;             // slopes fall; ties by item, then order within the item
  std::vector<uint64_t> bytes_after_;   // Σ after the first k steps, k = 0 … steps_.size()
  uint64_t bytes_min_ = 0;
  uint64_t bytes_max_ = 0;
  uint64_t bytes_quantum_ = 1;  // every choice is bytes_min_ plus a multiple of this
};

// Bytes on disk of everything a choice becomes, headers included.
using ExactSize = std::function<Result<uint64_t>(std::span<const uint32_t> choice)>;

// How far exact sizes may lie from what Σ bytes suggests when one choice changes: headers are
// padded in steps, and a tensor may move into another file.
inline constexpr uint64_t kExactSizeSlack = 64 * 1024;

struct PolishResult {
  uint64_t exact_bytes = 0;
  size_t upgrades = 0;
  // False when some upgrade larger than the room left (it would fit only if headers shrank) was not
  // tried, because trying all of them on a model of this many tensors takes too long.
  bool complete = true;
};

// Spends what the headers left over: applies the single change that lowers the cost most and still
// fits, until there is none. Requires exact_size(choice) ≤ budget.
// Complete when exact_size(changed) ≥ exact_size(choice) + Δbytes − kExactSizeSlack.
Result<PolishResult> polish(const Problem& problem, uint64_t budget, const ExactSize& exact_size,
                            Choice& choice);

// Σ bytes and Σ cost in item order.
uint64_t choice_bytes(const Problem& problem, std::span<const uint32_t> choice);
double choice_cost(const Problem& problem, std::span<const uint32_t> choice);

}  // namespace sluice::allocate
