// Which weights stay in memory and which are read again for every token, from sizes alone. One
// budget for all of them: what must stay, the frames of a window ring, slots for experts, and with
// the rest as much as possible of what would be read otherwise.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "runtime/expert_slots.h"
#include "runtime/window_ring.h"

namespace sluice::runtime {

struct ResidencyNeeds {
  uint64_t bytes_max = UINT64_MAX;  // for weights in all forms
  bool tied = false;                // the head is the embedding, so that all of it is read
  uint32_t experts_per_token = 0;
  uint64_t window_bytes = 0;  // 0: by the budget
};

// Bytes, and indices of entries.
struct Residency {
  std::vector<bool> pinned;  // by entry
  uint64_t pinned_bytes = 0;
  std::vector<Window> windows;  // in order of use; empty: none is read through a ring
  size_t frames = 0;
  uint64_t ring_bytes = 0;
  std::vector<ExpertSlots::Group> groups;  // of experts that take turns in slots, by layer
  size_t slots = 0, slots_max = 0;         // as chosen; that all experts would fill
  uint64_t slots_bytes = 0;
  // What decoding a token reads from disk: all windows, and the experts of a token that are not
  // there, were they chosen evenly.
  uint64_t disk_bytes_token = 0;
  double experts_there = 1;  // share of all experts that slots hold

  uint64_t bytes() const { return pinned_bytes + ring_bytes + slots_bytes; }
  bool reads_ahead() const { return !windows.empty() || !groups.empty(); }
  bool all_stay() const { return std::ranges::all_of(pinned, std::identity()); }
};

// The matrices of each layer's experts, by layer.
std::vector<ExpertSlots::Group> expert_groups(std::span<const WeightEntry> entries);

// The least bytes_max that choose_residency accepts.
uint64_t least_residency(std::span<const WeightEntry> entries, const ResidencyNeeds& needs);
// Everything stays where that fits. kExhausted below the least.
Result<Residency> choose_residency(std::span<const WeightEntry> entries,
                                   const ResidencyNeeds& needs);

}  // namespace sluice::runtime
