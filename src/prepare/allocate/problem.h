// From analysed modules to a multiple-choice knapsack: which candidates may be chosen, and what
// each costs in bytes and in quality. What is left after this is pure integers and doubles
// (solve.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "allocate/candidate.h"
#include "allocate/sensitivity.h"
#include "base/error.h"

namespace sluice::allocate {

enum class Objective : uint8_t {
  kNrmseSquared,  // Σ αᵢ·NRMSEᵢ², to first order the change of log-perplexity
  kNrmseLinear,   // Σ αᵢ·NRMSEᵢ, the published method's
};
std::string_view objective_name(Objective objective);  // "nrmse-squared", "nrmse-linear"
Result<Objective> parse_objective(std::string_view name);

// Formats that a plan may use: "all", "mint-v1", "mint-v2", or a list such as "4/64,8/64,16-bit".
struct ConfigSet {
  std::string name = "all";                    // as given; recorded in the plan
  std::vector<numerics::QuantFormat> formats;  // sorted; empty: every format
  bool allows(const numerics::QuantFormat& format) const;
};
Result<ConfigSet> parse_configs(std::string_view text);

struct ProblemSettings {
  Objective objective = Objective::kNrmseSquared;
  ConfigSet configs;
  bool allow_best = true;      // candidates of the `best` encoder
  double sqnr_floor_db = 9.0;  // −infinity: none
  // Judged on each candidate itself; else on the parity candidate of its format, which speaks for
  // better encoders too: without measured sensitivities nothing says that they make it safe. What
  // takes a SensitivityTable sets it by that.
  bool floor_by_encoder = false;
};

// One admissible candidate of one item. cost = αᵢ·NRMSE² (or αᵢ·NRMSE): finite, ≥ 0.
struct Option {
  uint64_t bytes = 0;
  double cost = 0;
  uint32_t candidate = 0;  // index into Item::candidates
};

// One index into Item::candidates per item.
using Choice = std::vector<uint32_t>;

// Value. Options of item i: options[first[i] .. first[i + 1]), in candidate order, never empty.
struct Problem {
  Objective objective = Objective::kNrmseSquared;
  std::vector<uint32_t> first;
  std::vector<Option> options;
  std::vector<double> alpha;  // per item; 0 where nothing can be chosen
  uint64_t elements = 0;      // of all items

  size_t item_count() const { return alpha.size(); }
  std::span<const Option> options_of(size_t item) const {
    return std::span(options).subspan(first[item], first[item + 1] - first[item]);
  }
  // nullptr when the candidate is not admissible.
  const Option* find(size_t item, uint32_t candidate) const;
};

// α·NRMSE² or α·NRMSE; 0 where α is 0. Infinity for an inexact encoding of zeros.
double candidate_cost(Objective objective, double alpha, const numerics::ErrorStats& error);

// The floor as the solver applies it: the module's SQNR and its worst expert's, of the candidate
// that speaks for this one (floor_by_encoder; itself where its format has no parity candidate).
bool passes_floor(const Item& item, const Candidate& candidate, const ProblemSettings& settings);

// Keeps, per quantizable item, the candidates that the configs, the encoders, bits_floor and the
// SQNR floor allow; when nothing is left (no format fits its shape), the most exact one. Items that
// are not quantizable keep their unquantized candidate.
// weights: one α per item (module_weights). Errors: kCorrupt for an analysis that contradicts
// itself (no candidates, negative or infinite sums, sizes that overflow), naming the module;
// kInvalidArgument for settings that make no sense.
Result<Problem> build_problem(std::span<const Item> items, std::span<const double> weights,
                              const ProblemSettings& settings);

}  // namespace sluice::allocate
