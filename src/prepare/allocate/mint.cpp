#include "allocate/mint.h"

#include <algorithm>
#include <array>

#include "base/checked.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

// Published depth weights.
constexpr double kFirstLayerWeight = 3;
constexpr double kLastLayerWeight = 2;

bool kept_at_16_bits(const Item& item) {
  return item.role == "embedding" || item.role == "head" || item.role == "router";
}

// The options of one item that are worth having: by rising bytes, costs falling strictly.
std::vector<const Option*> frontier_of(const Problem& problem, size_t item) {
  std::vector<const Option*> sorted;
  for (const Option& option : problem.options_of(item)) sorted.push_back(&option);
  std::stable_sort(sorted.begin(), sorted.end(), [](const Option* a, const Option* b) {
    return a->bytes != b->bytes ? a->bytes < b->bytes : a->cost < b->cost;
  });
  std::vector<const Option*> frontier;
  for (const Option* option : sorted)
    if (frontier.empty() || option->cost < frontier.back()->cost) frontier.push_back(option);
  return frontier;
}

}  // namespace

std::vector<double> mint_weights(std::span<const Item> items) {
  int last_layer = -1;
  for (const Item& item : items) last_layer = std::max(last_layer, item.layer);
  std::vector<double> weights;
  weights.reserve(items.size());
  for (const Item& item : items) {
    double weight = 1;
    if (item.layer == 0) {
      weight = kFirstLayerWeight;
    } else if (item.layer >= 0 && item.layer == last_layer) {
      weight = kLastLayerWeight;
    }
    weights.push_back(item.quantizable ? weight : 0);
  }
  return weights;
}

uint64_t mint_model_bytes(uint64_t elements, const QuantFormat& format) {
  if (format.mode == QuantMode::kFloat) return 2 * elements;
  const uint64_t whole = elements / 8 * format.bits;  // in two parts: elements · bits may overflow
  const uint64_t rest = (elements % 8 * format.bits + 7) / 8;
  const uint64_t groups = elements / format.group_size + (elements % format.group_size != 0);
  return whole + rest + 4 * groups;
}

Result<Problem> mint_problem(std::span<const Item> items, double sqnr_floor_db) {
  SLUICE_ASSIGN(const ConfigSet configs, parse_configs("mint-v1"));
  ProblemSettings settings;
  settings.objective = Objective::kNrmseLinear;
  settings.configs = configs;
  settings.allow_best = false;
  settings.sqnr_floor_db = sqnr_floor_db;

  // Its candidates are its own quantizer's: parity is the nearest we measure, lossless is not one.
  std::vector<Item> reduced(items.begin(), items.end());
  std::vector<std::vector<uint32_t>> original(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    Item& item = reduced[i];
    if (item.elements > UINT64_MAX / 64)
      return fail(ErrorCode::kCorrupt, "{}: {} elements are more than any model has",
                  item.tensor_name(), item.elements);
    if (!item.quantizable) {
      for (uint32_t j = 0; j < item.candidates.size(); ++j) original[i].push_back(j);
      continue;
    }
    std::vector<Candidate> kept;
    for (uint32_t j = 0; j < item.candidates.size(); ++j) {
      const Candidate& candidate = item.candidates[j];
      const bool is_float = candidate.format.mode == QuantMode::kFloat;
      if (!is_float && (candidate.encoder != Encoder::kParity || kept_at_16_bits(item))) continue;
      kept.push_back(candidate);
      kept.back().bytes = mint_model_bytes(item.elements, candidate.format);
      original[i].push_back(j);
    }
    if (kept.empty())
      return fail(ErrorCode::kUnsupported,
                  "{}: analysis has neither 16-bit nor parity candidates for it, which the "
                  "mint-v1 mode needs",
                  item.tensor_name());
    item.candidates = std::move(kept);
  }
  SLUICE_ASSIGN(Problem problem, build_problem(reduced, mint_weights(items), settings));
  for (size_t i = 0; i < items.size(); ++i)
    for (uint32_t k = problem.first[i]; k < problem.first[i + 1]; ++k)
      problem.options[k].candidate = original[i][problem.options[k].candidate];
  return problem;
}

uint64_t mint_bytes_min(const Problem& problem) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < problem.item_count(); ++i) bytes += frontier_of(problem, i)[0]->bytes;
  return bytes;
}

MintSolution solve_mint(const Problem& problem, uint64_t budget) {
  struct Upgrade {
    double saved_per_byte;
    size_t item;
    const Option* to;
  };
  std::vector<const Option*> current;
  std::vector<Upgrade> upgrades;
  uint64_t used = 0;
  for (size_t i = 0; i < problem.item_count(); ++i) {
    const std::vector<const Option*> frontier = frontier_of(problem, i);
    current.push_back(frontier[0]);
    used += frontier[0]->bytes;
    for (size_t k = 1; k < frontier.size(); ++k)
      upgrades.push_back({(frontier[k - 1]->cost - frontier[k]->cost) /
                              static_cast<double>(frontier[k]->bytes - frontier[k - 1]->bytes),
                          i, frontier[k]});
  }
  SLUICE_CHECK(used <= budget);
  std::stable_sort(upgrades.begin(), upgrades.end(), [](const Upgrade& a, const Upgrade& b) {
    return a.saved_per_byte > b.saved_per_byte;
  });
  // One pass. An upgrade whose predecessor was skipped starts from where the module is.
  for (const Upgrade& upgrade : upgrades) {
    const Option* from = current[upgrade.item];
    if (upgrade.to->bytes <= from->bytes) continue;
    const uint64_t more = upgrade.to->bytes - from->bytes;
    if (more > budget - used) continue;
    used += more;
    current[upgrade.item] = upgrade.to;
  }
  MintSolution solution;
  solution.model_bytes = used;
  for (const Option* option : current) {
    solution.choice.push_back(option->candidate);
    solution.cost += option->cost;
  }
  return solution;
}

}  // namespace sluice::allocate
