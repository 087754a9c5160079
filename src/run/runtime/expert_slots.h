// Experts that do not all stay: slots of equal size, each for one expert of one layer with all its
// matrices. A layer's choice is asked for at once; those that are there are handed out first, and
// the rest as they arrive, so that computing hides reading. Which expert makes room is a policy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/backend.h"
#include "runtime/page_memory.h"
#include "runtime/weight_reader.h"

namespace sluice::runtime {

// Who makes room. Recency: whoever was used longest ago. Frequency: whoever was used least often of
// late, and of several the one that was used last: where slots hold less than one token's choices,
// the oldest of them always leaves just before it is needed again, and nothing is ever found.
enum class SlotPolicy : uint8_t { kRecency, kFrequency };

struct ExpertStatistics {
  uint64_t requests = 0;  // experts asked for, once for each step and layer
  uint64_t hits = 0;      // of those, how many were there
};

// One thread. entries and reader must outlive it.
class ExpertSlots {
 public:
  // The matrices of one layer's experts, which are used together.
  using Group = std::vector<uint32_t>;

  // Bytes of a slot that holds any expert of any group.
  static uint64_t slot_bytes(std::span<const WeightEntry> entries, std::span<const Group> groups);
  // slots: at least one. kExhausted: the system refuses the memory.
  static Result<std::unique_ptr<ExpertSlots>> make(std::span<const WeightEntry> entries,
                                                   std::span<const Group> groups, size_t slots,
                                                   SlotPolicy policy, WeightReader& reader);
  ~ExpertSlots();

  size_t slots() const { return slots_.size(); }
  const ExpertStatistics& statistics() const { return statistics_; }

  // The experts that a layer's step will use, each once. What an earlier request left over is
  // dropped. group: the matrices, as given to make().
  void request(uint32_t first_entry, std::span<const model::ExpertGroup> experts);
  // Some of those requested that are there now: all that were there already first, then at least
  // one more for each call. Empty: all were handed out. They stay until the next call. Errors: the
  // source's.
  Result<std::span<const model::ExpertGroup>> next();
  // One matrix of an expert that was just handed out.
  numerics::WeightView view(uint32_t entry, uint32_t expert) const;

 private:
  static constexpr uint32_t kNowhere = UINT32_MAX;
  struct Slot {
    uint32_t layer = kNowhere, expert = 0;  // kNowhere: empty
    uint64_t used_at = 0;                   // of the policy's clock
    bool held = false;                      // requested, and not yet done with
    std::vector<PlacedRows> placed;         // of each matrix
    ReadTicket ticket;
  };
  ExpertSlots(std::span<const WeightEntry> entries, std::span<const Group> groups, size_t slots,
              SlotPolicy policy, WeightReader& reader);
  std::byte* memory_of(uint32_t slot) const;
  uint32_t& place_of(uint32_t layer, uint32_t expert);
  bool leaves_before(const Slot& a, const Slot& b) const;
  uint32_t find_room() const;
  void grow_older();
  void read_expert(uint32_t slot, const model::ExpertGroup& expert);
  void read_waiting();
  void let_go();

  const std::span<const WeightEntry> entries_;
  const std::vector<Group> groups_;
  const uint64_t slot_bytes_;
  const SlotPolicy policy_;
  WeightReader& reader_;
  PageMemory memory_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unordered_map<uint32_t, uint32_t> layer_of_;  // of an entry
  std::vector<std::vector<uint32_t>> place_;         // [layer][expert] → slot
  std::vector<std::vector<uint32_t>> uses_;          // [layer][expert], halved now and then
  uint64_t clock_ = 0;
  ExpertStatistics statistics_;

  uint32_t layer_ = kNowhere;                  // of the request
  bool keeps_ = true;                          // what it brings is worth keeping
  std::vector<model::ExpertGroup> there_;      // were found, not handed out yet
  std::vector<model::ExpertGroup> under_way_;  // being read
  std::vector<model::ExpertGroup> waiting_;    // for a slot
  std::vector<model::ExpertGroup> out_;        // handed out by the last next()
  std::vector<WeightTransfer> transfers_;
  std::vector<ReadTicket*> tickets_;
};

}  // namespace sluice::runtime
