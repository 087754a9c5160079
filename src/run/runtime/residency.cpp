#include "runtime/residency.h"

#include <algorithm>
#include <climits>
#include <map>
#include <numeric>

#include "base/checked.h"
#include "base/units.h"
#include "io/aligned_buffer.h"
#include "kernels/matmul.h"

namespace sluice::runtime {
namespace {

using families::Role;

// A window is read with a few large requests and handed to all threads: smaller ones cost requests
// and starts, larger ones memory. Four frames: one in use, and enough under way for the disk.
constexpr uint64_t kWindowBytesMax = 8 << 20;
constexpr uint64_t kWindowBytesMin = 256 << 10;
constexpr size_t kFrames = 4;
constexpr uint64_t kRingShare = 8;  // of the budget: one part of so many, between these bounds

// In what order a layer's matrices are used.
int rank_of(Role role) {
  switch (role) {
    case Role::kAttentionQ: return 0;
    case Role::kAttentionK: return 1;
    case Role::kAttentionV: return 2;
    case Role::kAttentionO: return 3;
    case Role::kMlpGate: return 4;
    case Role::kMlpUp: return 5;
    case Role::kMlpDown: return 6;
    default: return 7;
  }
}

// Every entry that stays begins at a page.
uint64_t memory_of(const WeightEntry& entry) {
  return align_up(place_rows(entry, 0, entry.rows, 0).end, io::kDirectAlignment);
}

// The least and the most that each part of the budget can use.
struct Parts {
  std::vector<uint32_t> always, dense, rows_only;  // entries
  uint64_t always_bytes = 0, dense_bytes = 0, rows_only_bytes = 0, experts_bytes = 0;
  std::vector<ExpertSlots::Group> experts;  // by layer
  size_t experts_count = 0;
};

Parts sort_entries(std::span<const WeightEntry> entries, bool tied) {
  Parts parts;
  for (uint32_t i = 0; i < entries.size(); ++i) {
    const WeightEntry& e = entries[i];
    const uint64_t bytes = memory_of(e);
    if (e.experts > 1) {
      parts.experts_bytes += bytes;
    } else if (e.role == Role::kEmbedding && !tied) {
      parts.rows_only.push_back(i);
      parts.rows_only_bytes += bytes;
    } else if (e.vector() || e.role == Role::kRouter || e.role == Role::kBias ||
               e.role == Role::kOther) {
      parts.always.push_back(i);
      parts.always_bytes += bytes;
    } else {
      parts.dense.push_back(i);
      parts.dense_bytes += bytes;
    }
  }
  parts.experts = expert_groups(entries);
  for (const ExpertSlots::Group& group : parts.experts)
    parts.experts_count += entries[group[0]].experts;
  std::ranges::stable_sort(parts.dense, {}, [&](uint32_t i) {
    const WeightEntry& e = entries[i];
    return std::pair(e.layer < 0 ? INT_MAX : e.layer, rank_of(e.role));
  });
  return parts;
}

// Rows of at most that many bytes, and at least one unit of rows.
void append_windows(const WeightEntry& entry, uint32_t index, uint64_t bytes_max,
                    std::vector<Window>& out) {
  const uint64_t unit = std::lcm(uint64_t{kernels::kMatmulRowStep}, entry.row_unit());
  uint64_t rows = std::max<uint64_t>(1, bytes_max / (entry.bytes_per_row() * unit)) * unit;
  // Of equal size, as nearly as units allow.
  const uint64_t count = (entry.rows + rows - 1) / rows;
  rows = align_up((entry.rows + count - 1) / count, unit);
  for (uint64_t first = 0; first < entry.rows; first += rows)
    out.push_back({index, first, std::min(rows, entry.rows - first)});
}

// Some of the dense matrices to stay in bytes_max, spread evenly over a forward pass: where a
// resident one is used, the disk goes on reading for the next that is not.
std::vector<bool> spread_evenly(std::span<const WeightEntry> entries,
                                std::span<const uint32_t> order, uint64_t bytes_all,
                                uint64_t bytes_max) {
  std::vector<bool> stays(order.size());
  const double share = static_cast<double>(bytes_max) / static_cast<double>(bytes_all);
  double due = 0;
  uint64_t used = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const uint64_t bytes = memory_of(entries[order[i]]);
    due += share * static_cast<double>(bytes);
    if (due * 2 < static_cast<double>(bytes) || used + bytes > bytes_max) continue;
    stays[i] = true;
    used += bytes;
    due -= static_cast<double>(bytes);
  }
  for (size_t i = 0; i < order.size(); ++i) {  // what is left over in small change
    const uint64_t bytes = memory_of(entries[order[i]]);
    if (stays[i] || used + bytes > bytes_max) continue;
    stays[i] = true;
    used += bytes;
  }
  return stays;
}

void pin(std::span<const WeightEntry> entries, std::span<const uint32_t> which, Residency& out) {
  for (const uint32_t i : which) {
    out.pinned[i] = true;
    out.pinned_bytes += memory_of(entries[i]);
  }
}

// Through a ring, whatever of the dense matrices does not fit.
void stream_dense(std::span<const WeightEntry> entries, const Parts& parts, uint64_t bytes_max,
                  uint64_t window_wanted, Residency& out) {
  const auto windows_of = [&](uint64_t window_bytes, const std::vector<bool>& stays) {
    std::vector<Window> windows;
    for (size_t i = 0; i < parts.dense.size(); ++i)
      if (!stays[i]) append_windows(entries[parts.dense[i]], parts.dense[i], window_bytes, windows);
    return windows;
  };
  const uint64_t window_bytes = window_wanted > 0 ? window_wanted
                                                  : std::clamp(bytes_max / kRingShare / kFrames,
                                                               kWindowBytesMin, kWindowBytesMax);
  const std::vector<bool> none(parts.dense.size());
  out.ring_bytes = frame_bytes(entries, windows_of(window_bytes, none)) * kFrames;
  const uint64_t room = bytes_max - std::min(bytes_max, out.ring_bytes);
  const std::vector<bool> stays = spread_evenly(entries, parts.dense, parts.dense_bytes, room);
  out.windows = windows_of(window_bytes, stays);
  out.frames = std::max<size_t>(2, std::min(kFrames, out.windows.size()));
  out.ring_bytes = frame_bytes(entries, out.windows) * out.frames;
  for (size_t i = 0; i < parts.dense.size(); ++i)
    if (stays[i]) pin(entries, {&parts.dense[i], 1}, out);
  for (const Window& w : out.windows)
    out.disk_bytes_token += w.rows * entries[w.entry].bytes_per_row();
}

uint64_t smallest_ring(std::span<const WeightEntry> entries, const Parts& parts,
                       uint64_t window_wanted) {
  std::vector<Window> windows;
  for (const uint32_t i : parts.dense)
    append_windows(entries[i], i, window_wanted > 0 ? window_wanted : kWindowBytesMin, windows);
  return frame_bytes(entries, windows) * kFrames;
}

struct Experts {
  std::vector<ExpertSlots::Group> groups;
  uint64_t slot_bytes = 0;
  size_t slots_min = 0;
};

// Two tokens' choices are the least with which one layer's experts do not push out each other.
Experts experts_of(std::span<const WeightEntry> entries, const Parts& parts,
                   uint32_t experts_per_token) {
  Experts experts;
  experts.groups = parts.experts;
  if (experts.groups.empty()) return experts;
  experts.slot_bytes = ExpertSlots::slot_bytes(entries, experts.groups);
  experts.slots_min = std::min<size_t>(size_t{2} * experts_per_token, parts.experts_count);
  return experts;
}

uint64_t least_of(std::span<const WeightEntry> entries, const Parts& parts, const Experts& experts,
                  uint64_t window_bytes) {
  return parts.always_bytes + experts.slots_min * experts.slot_bytes +
         std::min(parts.dense_bytes, smallest_ring(entries, parts, window_bytes));
}

}  // namespace

std::vector<ExpertSlots::Group> expert_groups(std::span<const WeightEntry> entries) {
  std::map<int, ExpertSlots::Group> by_layer;
  for (uint32_t i = 0; i < entries.size(); ++i)
    if (entries[i].experts > 1) by_layer[entries[i].layer].push_back(i);
  std::vector<ExpertSlots::Group> groups;
  for (auto& [layer, group] : by_layer) groups.push_back(std::move(group));
  return groups;
}

uint64_t least_residency(std::span<const WeightEntry> entries, const ResidencyNeeds& needs) {
  const Parts parts = sort_entries(entries, needs.tied);
  return least_of(entries, parts, experts_of(entries, parts, needs.experts_per_token),
                  needs.window_bytes);
}

Result<Residency> choose_residency(std::span<const WeightEntry> entries,
                                   const ResidencyNeeds& needs) {
  const Parts parts = sort_entries(entries, needs.tied);
  Residency out;
  out.pinned.assign(entries.size(), false);
  const uint64_t all =
      parts.always_bytes + parts.dense_bytes + parts.rows_only_bytes + parts.experts_bytes;
  if (all <= needs.bytes_max) {
    out.pinned.assign(entries.size(), true);
    out.pinned_bytes = all;
    return out;
  }
  pin(entries, parts.always, out);
  Experts experts = experts_of(entries, parts, needs.experts_per_token);
  const uint64_t least = least_of(entries, parts, experts, needs.window_bytes);
  if (needs.bytes_max < least)
    return fail(ErrorCode::kExhausted, "weights need at least {}, but {} are left for them",
                bytes_text(least), bytes_text(needs.bytes_max));
  const uint64_t floor = out.pinned_bytes + experts.slots_min * experts.slot_bytes;
  uint64_t left = needs.bytes_max - floor;
  if (parts.dense_bytes <= left) {
    pin(entries, parts.dense, out);
    left -= parts.dense_bytes;
  } else {
    stream_dense(entries, parts, left, needs.window_bytes, out);
    const uint64_t used = out.bytes() + experts.slots_min * experts.slot_bytes;
    left = needs.bytes_max - std::min(needs.bytes_max, used);
  }
  if (!experts.groups.empty()) {
    out.slots_max = parts.experts_count;
    out.slots = std::min(parts.experts_count,
                         experts.slots_min + static_cast<size_t>(left / experts.slot_bytes));
    out.slots_bytes = out.slots * experts.slot_bytes;
    out.groups = std::move(experts.groups);
    out.experts_there = static_cast<double>(out.slots) / static_cast<double>(parts.experts_count);
    for (const ExpertSlots::Group& group : out.groups)
      for (const uint32_t i : group) {
        const WeightEntry& e = entries[i];
        const uint64_t token = e.bytes() / e.experts * needs.experts_per_token;
        out.disk_bytes_token +=
            static_cast<uint64_t>(static_cast<double>(token) * (1 - out.experts_there));
      }
  } else if (parts.rows_only_bytes <= needs.bytes_max - out.bytes()) {
    pin(entries, parts.rows_only, out);
  }
  return out;
}

}  // namespace sluice::runtime
