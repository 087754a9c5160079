#include "allocate/solve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "allocate/size_text.h"
#include "base/checked.h"

namespace sluice::allocate {
namespace {

// Limits of the exact completion. They are counts, never times, so that the result does not depend
// on the machine; beyond them the best states go on and the bound says what may have been lost.
constexpr size_t kStatesMax = 4096;
constexpr size_t kExpansionsMax = 4'000'000;  // states times changes looked at
constexpr size_t kNodesMax = 1'000'000;
// After this many, a proof to within kGapSmall of the whole cost is enough.
constexpr size_t kExpansionsSmallGap = 1'000'000;
constexpr double kGapSmall = 1e-6;

// Upgrades that fit only if headers shrink are tried within this many calls of exact_size, whose
// time grows with the number of items: about a second for any model.
constexpr size_t kLongShotsMin = 32;
constexpr size_t kLongShotItemsMax = 1'000'000;

// Costs closer than this, relative to the whole, differ by rounding alone.
constexpr double kRounding = 1e-14;

constexpr uint32_t kNone = UINT32_MAX;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A partial choice over the core items seen so far, against the Lagrangian choice.
struct State {
  int64_t bytes;  // difference in bytes
  double cost;    // difference in cost
  uint32_t node;  // into the trail of changes
  uint32_t to;    // the last change, while it is not in the trail yet
};

// One departure from the Lagrangian choice; parent 0 is the beginning.
struct Node {
  uint32_t parent;
  uint32_t item;
  uint32_t to;
};

// An option of a core item as a difference from the Lagrangian choice.
struct Change {
  int64_t bytes;
  double cost;
  double penalty;  // cost + λ·bytes ≥ 0: what it loses against the Lagrangian bound
  uint32_t to;
};

struct CoreItem {
  double efficiency;  // least penalty per byte moved: items worth looking at first
  uint32_t item;
  uint32_t first;  // into the changes
  uint32_t count;
};

}  // namespace

// Exact completion: dynamic programming over items in order of how little they lose against the
// Lagrangian bound, with dominance between states and a bound on each. docs/allocation.md#solver
class CoreSearch {
 public:
  // base: the Lagrangian choice for slope lambda, room bytes below the budget.
  CoreSearch(const Solver& solver, std::span<const uint32_t> base, double lambda, int64_t room)
      : solver_(solver), base_(base), lambda_(lambda), room_(room) {
    double cost = 0;
    for (const uint32_t option : base) cost += solver.reduced_[option].cost;
    rounding_ = kRounding * cost;
    small_gap_ = kGapSmall * cost;
  }

  // Writes the best choice found over base; returns how much cheaper a choice could still be.
  double run(std::vector<uint32_t>& choice) {
    collect();
    search();
    for (uint32_t node = best_node_; node != 0; node = nodes_[node].parent)
      choice[nodes_[node].item] = nodes_[node].to;
    if (best_single_ != kNone) choice[best_single_item_] = best_single_;
    return std::max(0.0, best_cost_ - std::min(best_cost_, lost_bound_));
  }

 private:
  double penalty_of(double cost, int64_t bytes) const {
    return std::max(0.0, cost + lambda_ * static_cast<double>(bytes));
  }
  // Of a solution that costs best_cost_ more than base, over the Lagrangian bound.
  double allowance() const { return best_cost_ + lambda_ * static_cast<double>(room_); }

  // Gathers the options that an optimal choice could use, and the best single change on the way.
  void collect() {
    const size_t item_count = base_.size();
    std::vector<Change>& changes = changes_;
    for (size_t i = 0; i < item_count; ++i) {
      const auto& from = solver_.reduced_[base_[i]];
      const uint32_t first = static_cast<uint32_t>(changes.size());
      for (uint32_t to = solver_.reduced_first_[i]; to < solver_.reduced_first_[i + 1]; ++to) {
        if (to == base_[i]) continue;
        const auto& option = solver_.reduced_[to];
        const int64_t bytes = static_cast<int64_t>(option.bytes - from.bytes);
        const double cost = option.cost - from.cost;
        const double penalty = penalty_of(cost, bytes);
        if (penalty >= allowance()) continue;
        changes.push_back({bytes, cost, penalty, to});
        if (bytes <= room_ && cost < best_cost_) {
          best_cost_ = cost;
          best_single_ = to;
          best_single_item_ = static_cast<uint32_t>(i);
        }
      }
      if (changes.size() == first) continue;
      core_.push_back(
          {0, static_cast<uint32_t>(i), first, static_cast<uint32_t>(changes.size()) - first});
    }
    // The allowance has shrunk since the first items: filter again before sorting.
    const double limit = allowance();
    size_t kept_items = 0;
    uint32_t kept = 0;
    for (CoreItem core : core_) {
      const uint32_t first = kept;
      core.efficiency = kInfinity;
      for (uint32_t c = core.first; c < core.first + core.count; ++c) {
        if (changes[c].penalty >= limit) continue;
        core.efficiency = std::min(core.efficiency, per_byte(changes[c]));
        changes[kept++] = changes[c];
      }
      if (kept == first) continue;
      core.first = first;
      core.count = kept - first;
      core_[kept_items++] = core;
    }
    core_.resize(kept_items);
    changes.resize(kept);
    std::sort(core_.begin(), core_.end(), [](const CoreItem& a, const CoreItem& b) {
      return a.efficiency != b.efficiency ? a.efficiency < b.efficiency : a.item < b.item;
    });
  }

  bool worth(double bound) const { return bound < best_cost_ - rounding_; }

  static double per_byte(const Change& change) {
    return change.penalty / static_cast<double>(change.bytes < 0 ? -change.bytes : change.bytes);
  }

  // A lower bound on the cost of anything a state can become. up and down: least penalty per byte
  // of the changes still to come that add or free bytes.
  double bound_of(int64_t bytes, double cost, double up, double down) const {
    const int64_t room = room_ - bytes;
    return room >= 0 ? cost - static_cast<double>(room) * (lambda_ - std::min(lambda_, up))
                     : cost + static_cast<double>(-room) * (lambda_ + down);
  }

  void search() {
    // up_[k], down_[k]: over core items k and later.
    std::vector<double> up(core_.size() + 1, kInfinity);
    std::vector<double> down(core_.size() + 1, kInfinity);
    for (size_t k = core_.size(); k-- > 0;) {
      up[k] = up[k + 1];
      down[k] = down[k + 1];
      for (uint32_t c = 0; c < core_[k].count; ++c) {
        const Change& change = changes_[core_[k].first + c];
        double& side = change.bytes > 0 ? up[k] : down[k];
        side = std::min(side, per_byte(change));
      }
    }

    nodes_.push_back({0, 0, 0});
    std::vector<State> states = {{0, 0, 0, kNone}};
    std::vector<State> shifted, merged;
    size_t expansions = 0;
    for (size_t k = 0; k < core_.size() && !states.empty(); ++k) {
      const CoreItem& core = core_[k];
      if (core.efficiency == kInfinity) break;
      const double up_after = up[k + 1];
      const double down_after = down[k + 1];
      const size_t expansions_max = allowance() < small_gap_ ? kExpansionsSmallGap : kExpansionsMax;
      if (expansions > expansions_max || nodes_.size() > kNodesMax) {
        for (const State& state : states) lose(bound_of(state.bytes, state.cost, up[k], down[k]));
        return;
      }
      // merged: states that leave this item as it is. The bound has tightened for them as well.
      merged.clear();
      for (const State& state : states)
        if (worth(bound_of(state.bytes, state.cost, up_after, down_after))) merged.push_back(state);
      for (uint32_t c = 0; c < core.count; ++c) {
        const Change& change = changes_[core.first + c];
        if (change.penalty >= allowance()) continue;
        shifted.clear();
        expansions += states.size();
        for (const State& state : states) {
          const int64_t bytes = state.bytes + change.bytes;
          const double cost = state.cost + change.cost;
          if (bytes <= room_ && cost < best_cost_) {
            best_cost_ = cost;
            best_node_ = add_node(state.node, core.item, change.to);
            best_single_ = kNone;
          }
          if (worth(bound_of(bytes, cost, up_after, down_after)))
            shifted.push_back({bytes, cost, state.node, change.to});
        }
        merge_into(merged, shifted);
      }
      states.swap(merged);
      if (states.size() > kStatesMax) truncate(states, up_after, down_after);
      // Only now, because most changes do not survive the merging.
      for (State& state : states) {
        if (state.to == kNone) continue;
        state.node = add_node(state.node, core.item, state.to);
        state.to = kNone;
      }
    }
  }

  uint32_t add_node(uint32_t parent, uint32_t item, uint32_t to) {
    nodes_.push_back({parent, item, to});
    return static_cast<uint32_t>(nodes_.size() - 1);
  }

  void lose(double bound) { lost_bound_ = std::min(lost_bound_, bound); }

  // Both by rising bytes; keeps what costs strictly less than everything smaller.
  void merge_into(std::vector<State>& states, const std::vector<State>& more) {
    if (more.empty()) return;
    scratch_.clear();
    double least = kInfinity;
    size_t a = 0;
    size_t b = 0;
    while (a < states.size() || b < more.size()) {
      bool take_a = b == more.size();
      if (!take_a && a < states.size()) {
        take_a = states[a].bytes != more[b].bytes ? states[a].bytes < more[b].bytes
                                                  : states[a].cost <= more[b].cost;
      }
      const State& next = take_a ? states[a++] : more[b++];
      if (next.cost < least) {
        least = next.cost;
        scratch_.push_back(next);
      }
    }
    states.swap(scratch_);
  }

  // Keeps the kStatesMax states of least bound, in their order, and remembers what the others
  // could have become.
  void truncate(std::vector<State>& states, double up, double down) {
    std::vector<std::pair<double, uint32_t>> ranked;
    ranked.reserve(states.size());
    for (uint32_t s = 0; s < states.size(); ++s)
      ranked.push_back({bound_of(states[s].bytes, states[s].cost, up, down), s});
    std::nth_element(ranked.begin(), ranked.begin() + kStatesMax, ranked.end());
    for (size_t s = kStatesMax; s < ranked.size(); ++s) lose(ranked[s].first);
    ranked.resize(kStatesMax);
    std::sort(ranked.begin(), ranked.end(),
              [](const auto& a, const auto& b) { return a.second < b.second; });
    for (size_t s = 0; s < kStatesMax; ++s) states[s] = states[ranked[s].second];
    states.resize(kStatesMax);
  }

  const Solver& solver_;
  std::span<const uint32_t> base_;
  const double lambda_;
  const int64_t room_;
  double rounding_ = 0;
  double small_gap_ = 0;

  std::vector<Change> changes_;
  std::vector<CoreItem> core_;
  std::vector<Node> nodes_;
  std::vector<State> scratch_;
  double best_cost_ = 0;  // against base, which itself fits
  uint32_t best_node_ = 0;
  uint32_t best_single_ = kNone;
  uint32_t best_single_item_ = 0;
  double lost_bound_ = kInfinity;
};

Result<Solver> Solver::create(Problem problem) {
  if (problem.item_count() == 0)
    return fail(ErrorCode::kInvalidArgument, "there are no modules to plan for");
  Solver solver;
  solver.problem_ = std::move(problem);
  const Problem& input = solver.problem_;
  const size_t item_count = input.item_count();
  solver.reduced_first_.reserve(item_count + 1);
  solver.reduced_first_.push_back(0);
  solver.reduced_.reserve(input.options.size());

  uint64_t quantum = 0;
  uint64_t largest = 0;
  std::vector<ReducedOption> sorted;
  std::vector<uint32_t> hull;
  for (size_t i = 0; i < item_count; ++i) {
    sorted.clear();
    uint64_t largest_here = 0;
    for (const Option& option : input.options_of(i)) {
      largest_here = std::max(largest_here, option.bytes);
      // Insertion keeps equals in candidate order; there are about twenty.
      size_t place = sorted.size();
      sorted.push_back({option.bytes, option.cost, option.candidate});
      for (; place > 0; --place) {
        const ReducedOption& before = sorted[place - 1];
        if (before.bytes < option.bytes ||
            (before.bytes == option.bytes && before.cost <= option.cost))
          break;
        sorted[place] = before;
      }
      sorted[place] = {option.bytes, option.cost, option.candidate};
    }
    SLUICE_CHECK(!sorted.empty());
    const auto total = checked_add(largest, largest_here);
    if (!total || *total > static_cast<uint64_t>(INT64_MAX))
      return fail(ErrorCode::kInvalidArgument, "module sizes add up to more than 2^63 bytes");
    largest = *total;

    const uint32_t begin = static_cast<uint32_t>(solver.reduced_.size());
    double least = kInfinity;
    for (const ReducedOption& option : sorted) {
      if (!(option.cost < least)) continue;
      least = option.cost;
      solver.reduced_.push_back(option);
      quantum = std::gcd(quantum, option.bytes - solver.reduced_[begin].bytes);
    }
    const uint32_t end = static_cast<uint32_t>(solver.reduced_.size());
    solver.reduced_first_.push_back(end);
    solver.bytes_min_ += solver.reduced_[begin].bytes;
    solver.bytes_max_ += solver.reduced_[end - 1].bytes;

    // The lower convex hull: slopes between neighbours fall strictly.
    const auto slope = [&](uint32_t from, uint32_t to) {
      const ReducedOption& a = solver.reduced_[from];
      const ReducedOption& b = solver.reduced_[to];
      return (a.cost - b.cost) / static_cast<double>(b.bytes - a.bytes);
    };
    hull.clear();
    for (uint32_t option = begin; option < end; ++option) {
      while (hull.size() >= 2 &&
             slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), option))
        hull.pop_back();
      hull.push_back(option);
    }
    for (size_t h = 1; h < hull.size(); ++h)
      solver.steps_.push_back({slope(hull[h - 1], hull[h]),
                               solver.reduced_[hull[h]].bytes - solver.reduced_[hull[h - 1]].bytes,
                               static_cast<uint32_t>(i), hull[h]});
  }
  solver.bytes_quantum_ = std::max<uint64_t>(quantum, 1);

  std::sort(solver.steps_.begin(), solver.steps_.end(), [](const Step& a, const Step& b) {
    if (a.slope != b.slope) return a.slope > b.slope;
    return a.item != b.item ? a.item < b.item : a.to < b.to;
  });
  solver.bytes_after_.reserve(solver.steps_.size() + 1);
  solver.bytes_after_.push_back(solver.bytes_min_);
  for (const Step& step : solver.steps_)
    solver.bytes_after_.push_back(solver.bytes_after_.back() + step.bytes);
  return solver;
}

Solution Solver::finish(std::span<const uint32_t> reduced_choice) const {
  Solution solution;
  solution.choice.reserve(reduced_choice.size());
  for (const uint32_t option : reduced_choice) {
    solution.choice.push_back(reduced_[option].candidate);
    solution.bytes += reduced_[option].bytes;
    solution.cost += reduced_[option].cost;
  }
  solution.bound = solution.cost;
  return solution;
}

Solution Solver::smallest() const {
  return finish(std::span(reduced_first_).first(problem_.item_count()));
}

Solution Solver::solve(uint64_t budget) const {
  SLUICE_CHECK(budget >= bytes_min_);
  std::vector<uint32_t> choice(reduced_first_.begin(), reduced_first_.end() - 1);
  const uint64_t capacity =
      bytes_min_ + (std::min(budget, bytes_max_) - bytes_min_) / bytes_quantum_ * bytes_quantum_;
  const size_t taken =
      static_cast<size_t>(std::upper_bound(bytes_after_.begin(), bytes_after_.end(), capacity) -
                          bytes_after_.begin() - 1);
  for (size_t k = 0; k < taken; ++k) choice[steps_[k].item] = steps_[k].to;
  if (taken == steps_.size()) return finish(choice);

  // The steps taken are those of slope ≥ λ; the next one, of slope λ, does not fit any more.
  const std::vector<uint32_t> base = choice;
  CoreSearch search(*this, base, steps_[taken].slope,
                    static_cast<int64_t>(capacity - bytes_after_[taken]));
  const double lost = search.run(choice);
  Solution solution = finish(choice);
  solution.bound = solution.cost - lost;
  return solution;
}

Result<Solution> Solver::smallest_within_cost(double cost_max) const {
  const Solution least = solve(bytes_max_);
  if (!(least.cost <= cost_max))
    return fail(ErrorCode::kInvalidArgument,
                "no plan has a total weighted error of {:.6g} or less; the least is {:.6g}, at {}",
                cost_max, least.cost, gigabytes_text(least.bytes));
  Solution best = smallest();
  if (best.cost <= cost_max) return best;

  // The relaxed cost after k steps brackets the answer between two steps.
  double relaxed = best.cost;
  size_t k = 0;
  while (k < steps_.size() && relaxed > cost_max) {
    relaxed -= steps_[k].slope * static_cast<double>(steps_[k].bytes);
    ++k;
  }
  uint64_t low = k == 0 ? bytes_min_ : bytes_after_[k - 1];
  best = least;
  for (uint64_t high = std::min(bytes_after_[k], best.bytes);;) {
    Solution at_high = solve(high);
    if (at_high.cost <= cost_max) {
      best = std::move(at_high);
      break;
    }
    if (k == steps_.size()) break;  // rounding alone separates the last step from cost_max
    low = high + 1;
    high = bytes_after_[++k];
  }
  while (low < best.bytes) {
    const uint64_t middle = low + (best.bytes - low) / 2;
    Solution solution = solve(middle);
    if (solution.cost <= cost_max) {
      best = std::move(solution);
    } else {
      low = middle + 1;
    }
  }
  return best;
}

Result<Solution> Solver::smallest_within_nrmse(std::span<const Item> items,
                                               double nrmse_max) const {
  SLUICE_CHECK(items.size() == problem_.item_count());
  Solution solution;
  const double squared_max = nrmse_max * nrmse_max;
  for (size_t i = 0; i < items.size(); ++i) {
    const Option* best = nullptr;
    for (const Option& option : problem_.options_of(i)) {
      // What cannot be chosen cannot be improved: α is 0 for modules that are not quantizable.
      if (items[i].quantizable &&
          !(nrmse_squared(items[i].candidates[option.candidate].error) <= squared_max))
        continue;
      if (best == nullptr || option.bytes < best->bytes ||
          (option.bytes == best->bytes && option.cost < best->cost))
        best = &option;
    }
    if (best == nullptr)
      return fail(ErrorCode::kInvalidArgument,
                  "{}: none of its formats has an NRMSE of {:.6g} or less", items[i].tensor_name(),
                  nrmse_max);
    solution.choice.push_back(best->candidate);
    solution.bytes += best->bytes;
    solution.cost += best->cost;
  }
  solution.bound = solution.cost;
  return solution;
}

std::vector<Solution> Solver::sweep(size_t count) const {
  SLUICE_CHECK(count >= 2);
  std::vector<Solution> curve;
  curve.reserve(count);
  const uint64_t span = bytes_max_ - bytes_min_;
  for (size_t i = 0; i < count; ++i) {
    // In two parts, so that span · i cannot overflow.
    const uint64_t budget =
        bytes_min_ + span / (count - 1) * i + span % (count - 1) * i / (count - 1);
    Solution solution = solve(budget);
    // Where a proof was cut short, an earlier point may be the better plan.
    if (!curve.empty() && curve.back().cost < solution.cost) {
      const double bound = solution.bound;
      solution = curve.back();
      solution.bound = std::min(bound, solution.cost);
    }
    curve.push_back(std::move(solution));
  }
  return curve;
}

uint64_t choice_bytes(const Problem& problem, std::span<const uint32_t> choice) {
  SLUICE_CHECK(choice.size() == problem.item_count());
  uint64_t bytes = 0;
  for (size_t i = 0; i < choice.size(); ++i) {
    const Option* option = problem.find(i, choice[i]);
    SLUICE_CHECK(option != nullptr);
    bytes += option->bytes;
  }
  return bytes;
}

double choice_cost(const Problem& problem, std::span<const uint32_t> choice) {
  SLUICE_CHECK(choice.size() == problem.item_count());
  double cost = 0;
  for (size_t i = 0; i < choice.size(); ++i) {
    const Option* option = problem.find(i, choice[i]);
    SLUICE_CHECK(option != nullptr);
    cost += option->cost;
  }
  return cost;
}

Result<PolishResult> polish(const Problem& problem, uint64_t budget, const ExactSize& exact_size,
                            Choice& choice) {
  struct Upgrade {
    double saved;
    int64_t bytes;
    uint32_t item;
    uint32_t candidate;
  };
  PolishResult result;
  SLUICE_ASSIGN(result.exact_bytes, exact_size(choice));
  SLUICE_CHECK(result.exact_bytes <= budget);
  std::vector<Upgrade> upgrades;
  size_t long_shots = std::max(kLongShotsMin, kLongShotItemsMax / choice.size());
  for (bool changed = true; changed;) {
    changed = false;
    upgrades.clear();
    const uint64_t reach = budget - result.exact_bytes + kExactSizeSlack;
    for (size_t i = 0; i < choice.size(); ++i) {
      const Option* current = problem.find(i, choice[i]);
      SLUICE_CHECK(current != nullptr);
      for (const Option& option : problem.options_of(i)) {
        if (!(option.cost < current->cost)) continue;
        if (option.bytes > current->bytes && option.bytes - current->bytes > reach) continue;
        upgrades.push_back({current->cost - option.cost,
                            static_cast<int64_t>(option.bytes - current->bytes),
                            static_cast<uint32_t>(i), option.candidate});
      }
    }
    std::sort(upgrades.begin(), upgrades.end(), [](const Upgrade& a, const Upgrade& b) {
      if (a.saved != b.saved) return a.saved > b.saved;
      if (a.bytes != b.bytes) return a.bytes < b.bytes;
      return a.item != b.item ? a.item < b.item : a.candidate < b.candidate;
    });
    std::vector<bool> done(choice.size(), false);  // an item changes once per round
    for (const Upgrade& upgrade : upgrades) {
      if (done[upgrade.item]) continue;
      const uint64_t room = budget - result.exact_bytes;
      const uint64_t more = upgrade.bytes > 0 ? static_cast<uint64_t>(upgrade.bytes) : 0;
      if (more > room + kExactSizeSlack) continue;
      if (more > room) {
        if (long_shots == 0) {
          result.complete = false;
          continue;
        }
        --long_shots;
      }
      const uint32_t before = choice[upgrade.item];
      choice[upgrade.item] = upgrade.candidate;
      SLUICE_ASSIGN(const uint64_t bytes, exact_size(choice));
      if (bytes > budget) {
        choice[upgrade.item] = before;
        continue;
      }
      result.exact_bytes = bytes;
      ++result.upgrades;
      done[upgrade.item] = true;
      changed = true;
    }
  }
  return result;
}

}  // namespace sluice::allocate
