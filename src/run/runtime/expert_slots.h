// Experts that do not all stay: slots of equal size, each for one expert of one layer with all its
// matrices. A layer's choice is asked for at once; those that are there are handed out first, and
// the rest as they arrive, so that computing hides reading. Which expert makes room is the table's
// to say (slot_table.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "model/backend.h"
#include "runtime/page_memory.h"
#include "runtime/slot_table.h"
#include "runtime/weight_reader.h"

namespace sluice::runtime {

struct ExpertStatistics {
  uint64_t requests = 0;  // experts asked for, once for each step and layer
  uint64_t hits = 0;      // of those, how many were there
  uint64_t guesses = 0, guesses_right = 0;
};

// One thread. entries and reader must outlive it.
class ExpertSlots {
 public:
  // The matrices of one layer's experts, which are used together.
  using Group = std::vector<uint32_t>;
  struct Sizes {
    uint32_t experts_per_token = 1;
    size_t slots = 1;
    size_t slots_max = 1;  // that resize() may ask for; address space is set aside for them
  };

  // Bytes of a slot that holds any expert of any group.
  static uint64_t slot_bytes(std::span<const WeightEntry> entries, std::span<const Group> groups);
  // memory: null for the system's. kExhausted: it refuses.
  static Result<std::unique_ptr<ExpertSlots>> make(std::span<const WeightEntry> entries,
                                                   std::span<const Group> groups,
                                                   const Sizes& sizes, SlotPolicy policy,
                                                   WeightReader& reader,
                                                   const MemorySource* memory = nullptr);
  ~ExpertSlots();

  size_t slots() const { return slots_.size(); }
  size_t slots_max() const { return slots_max_; }
  uint64_t slot_bytes() const { return slot_bytes_; }
  const ExpertStatistics& statistics() const { return statistics_; }
  // What recent tokens used, and a place to begin with what an earlier run found.
  const SlotTable& table() const { return table_; }
  void learn(uint32_t group, std::span<const double> shares) { table_.learn(group, shares); }
  // Has the system find the slots' pages now, by all threads: a page that comes when a read first
  // needs it is cleared, and sometimes searched for, while everything waits for that read.
  void touch(ThreadPool& pool);
  // Reads those that recent tokens used most, as many as there is room for. Errors: the source's.
  Status fill();

  // Between requests. At least one, at most slots_max(). Memory of those that go is given back.
  void resize(size_t slots);

  // The experts that a layer's step will use, each once. What an earlier request left over is
  // dropped. group: the matrices, as given to make().
  void request(uint32_t first_entry, std::span<const model::ExpertGroup> experts);
  // Some of those requested that are there now: all that were there already first, then at least
  // one more for each call. Empty: all were handed out. They stay until the next call. Errors: the
  // source's.
  Result<std::span<const model::ExpertGroup>> next();
  // Begins to read the likely ones of those that are not there; of a later request, not of the
  // current one. choices: likeliest first.
  void guess(uint32_t first_entry, std::span<const model::Choice> choices);
  // One matrix of an expert that was just handed out.
  numerics::WeightView view(uint32_t entry, uint32_t expert) const;

 private:
  static constexpr uint32_t kNowhere = SlotTable::kNowhere;
  struct Slot {
    std::vector<PlacedRows> placed;  // of each matrix
    ReadTicket ticket;
  };
  ExpertSlots(std::span<const WeightEntry> entries, std::span<const Group> groups,
              const Sizes& sizes, SlotPolicy policy, WeightReader& reader);
  std::byte* memory_of(uint32_t slot) const;
  Slot& slot_of(uint32_t expert) { return *slots_[table_.find(layer_, expert)]; }
  void read_expert(uint32_t slot, uint32_t layer, uint32_t expert);
  void settle_guesses(std::span<const model::ExpertGroup> experts);
  void read_waiting();
  void read_again(const model::ExpertGroup& group);
  Status take_arrived();
  void let_go();

  const std::span<const WeightEntry> entries_;
  const std::vector<Group> groups_;
  const uint64_t slot_bytes_;
  const uint32_t experts_per_token_;
  const size_t slots_max_;
  WeightReader& reader_;
  PageMemory memory_;
  SlotTable table_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unordered_map<uint32_t, uint32_t> layer_of_;  // of an entry
  ExpertStatistics statistics_;

  uint32_t layer_ = 0;                         // of the request
  std::vector<uint32_t> guessed_;              // slots that guesses fill
  std::vector<model::ExpertGroup> there_;      // were found, not handed out yet
  std::vector<model::ExpertGroup> under_way_;  // being read
  std::vector<model::ExpertGroup> waiting_;    // for a slot
  std::vector<uint32_t> earlier_;              // of under_way_, those an earlier request began
  std::vector<model::ExpertGroup> out_;        // handed out by the last next()
  std::vector<WeightTransfer> transfers_;
  std::vector<ReadTicket*> tickets_;
};

}  // namespace sluice::runtime
