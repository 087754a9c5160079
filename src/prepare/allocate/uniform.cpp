#include "allocate/uniform.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr uint16_t kFloorGroup = 64;  // mlx_lm stores routers as 8/64

int find_candidate(const Item& item, const QuantFormat& format, Encoder encoder) {
  int found = -1;
  for (size_t j = 0; j < item.candidates.size(); ++j) {
    const Candidate& candidate = item.candidates[j];
    if (candidate.format != format) continue;
    if (candidate.encoder == encoder) return static_cast<int>(j);
    // `best` was priced for a subset; parity stands in. Lossless belongs to no uniform plan.
    if (encoder == Encoder::kBest && candidate.encoder == Encoder::kParity)
      found = static_cast<int>(j);
  }
  return found;
}

int find_float(const Item& item) {
  for (size_t j = 0; j < item.candidates.size(); ++j)
    if (item.candidates[j].format.mode == QuantMode::kFloat) return static_cast<int>(j);
  return 0;
}

// Groups in the order in which a module takes them: the wanted one, smaller ones, larger ones. An
// fp mode has but one.
std::vector<uint16_t> group_preference(const QuantFormat& wanted) {
  if (is_fp(wanted)) return {wanted.group_size};
  std::vector<uint16_t> order;
  for (size_t g = std::size(numerics::kAffineGroups); g-- > 0;)
    if (numerics::kAffineGroups[g] <= wanted.group_size)
      order.push_back(numerics::kAffineGroups[g]);
  for (const uint16_t group : numerics::kAffineGroups)
    if (group > wanted.group_size) order.push_back(group);
  return order;
}

}  // namespace

std::vector<UniformChoice> uniform_choices(std::span<const Item> items) {
  std::set<std::pair<QuantFormat, Encoder>> kinds;
  for (const Item& item : items) {
    if (!item.quantizable) continue;
    for (const Candidate& candidate : item.candidates)
      if (candidate.format.mode != QuantMode::kFloat &&
          (candidate.encoder == Encoder::kParity || candidate.encoder == Encoder::kBest))
        kinds.insert({candidate.format, candidate.encoder});
  }

  std::vector<UniformChoice> plans;
  for (const auto& [format, encoder] : kinds) {
    UniformChoice plan{format, encoder, {}, 0};
    plan.choice.reserve(items.size());
    for (const Item& item : items) {
      if (!item.quantizable) {
        plan.choice.push_back(static_cast<uint32_t>(find_float(item)));
        continue;
      }
      const bool raised = format.bits < item.bits_floor || (is_fp(format) && item.bits_floor > 0);
      QuantFormat wanted = format;
      if (raised) wanted = {QuantMode::kAffine, static_cast<uint8_t>(item.bits_floor), kFloorGroup};
      int chosen = -1;
      for (const uint16_t group : group_preference(wanted)) {
        wanted.group_size = group;
        chosen = find_candidate(item, wanted, encoder);
        if (chosen >= 0) break;
      }
      if (chosen < 0) chosen = find_float(item);
      if (item.candidates[static_cast<size_t>(chosen)].format != format) ++plan.fallback_modules;
      plan.choice.push_back(static_cast<uint32_t>(chosen));
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace sluice::allocate
