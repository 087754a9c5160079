// The weights of an opened model where products can read them. What stays is read at start into
// anonymous memory with large reads, not mapped from the files, because pages of a mapping can be
// evicted under pressure, cannot be huge, and cost several times the CPU per byte to bring in. What
// does not fit is read again whenever it is used: matrices through a ring of windows, experts into
// slots (residency.h). Quantized modules keep their packing, GGUF tensors their blocks; what has no
// kernel is decoded to the nearest type that has.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "base/thread_pool.h"
#include "runtime/engine.h"
#include "runtime/expert_trace.h"
#include "runtime/residency.h"

namespace sluice::runtime {

// Planned, arranged, then loaded; one thread. What it hands out lies at any alignment, with 64
// readable bytes behind each part.
class WeightStore {
 public:
  // Reads nothing. kUnsupported for storage that products cannot read.
  static Result<std::unique_ptr<WeightStore>> plan(std::shared_ptr<const io::Checkpoint> checkpoint,
                                                   const families::ModelMap& map);
  ~WeightStore();

  // Decides what stays, before load(); without it everything does. Errors: choose_residency's.
  Status arrange(const ResidencyNeeds& needs);
  // The same files with every read checked, in place of those given to plan(); before load().
  void read_from(std::shared_ptr<const io::Checkpoint> checkpoint) {
    checkpoint_ = std::move(checkpoint);
  }
  // Where memory for weights comes from, before load(); it must outlive the store. Null: the
  // system.
  void take_memory_from(const MemorySource* source) { memory_source_ = source; }
  // Reads what stays. progress counts bytes of the source.
  Status load(ThreadPool& pool, Progress& progress, ReadPath path = ReadPath::kAuto);

  // The least that arrange() would agree to.
  uint64_t memory_bytes_min(const ResidencyNeeds& needs) const {
    return least_residency(entries_, needs);
  }
  uint64_t memory_bytes() const { return residency_.bytes(); }
  const Residency& residency() const { return residency_; }
  const std::vector<WeightEntry>& entries() const { return entries_; }
  const std::vector<std::string>& notes() const { return notes_; }
  StreamStatistics statistics() const;
  bool reads_by_ring() const { return reader_ != nullptr && reader_->has_ring(); }
  // Index into entries(), or nothing.
  std::optional<uint32_t> find(std::string_view name) const;

  // ---- after load() ----
  bool stays(uint32_t entry) const { return residency_.pinned[entry]; }
  // All that stays, one after another.
  std::span<const std::byte> resident() const {
    return {memory_.data(), static_cast<size_t>(residency_.pinned_bytes)};
  }
  // Of a parameter that stays.
  numerics::WeightView view(uint32_t entry) const;
  // Decoded, whether it stays or not.
  Status decode_row(uint32_t entry, uint64_t row, std::span<float> out) const;
  // kCorrupt when a file that is still read from was written to or resized since it was opened.
  Status unchanged() const;

  // The windows of a matrix that does not stay: indices [first, first + second).
  std::pair<size_t, size_t> windows(uint32_t entry) const;
  const Window& window(size_t index) const { return residency_.windows[index]; }
  // That window's rows, until the next call. Errors: the source's.
  Result<numerics::WeightView> take(size_t window) const { return ring_->take(window); }

  // Experts, whether they stay or not: ExpertSlots' protocol.
  void request(uint32_t first_entry, std::span<const model::ExpertGroup> experts) const;
  Result<std::span<const model::ExpertGroup>> next_experts() const;
  bool takes_guesses() const { return guesses_ && slots_ != nullptr; }
  void set_guesses(bool wanted) { guesses_ = wanted; }
  void guess(uint32_t first_entry, std::span<const model::Choice> choices) const {
    slots_->guess(first_entry, choices);
  }
  numerics::WeightView expert(uint32_t entry, uint32_t expert) const;

  ExpertSlots* slots() const { return slots_.get(); }  // null where none take turns
  ExpertShares expert_shares() const;
  Status learn(const ExpertShares& shares);
  uint64_t resize_experts(uint64_t bytes);

  // The experts that requests name, from now on until null.
  void record_experts(ExpertTrace* trace);
  // What is read ahead, likewise; the same again without computing. Without such reads, nothing.
  void record_reads(ReadTrace* trace);
  Status replay_reads(const ReadTrace& trace);

 private:
  WeightStore() = default;
  Status load_pinned(ThreadPool& pool, Progress& progress);

  std::shared_ptr<const io::Checkpoint> checkpoint_;
  std::vector<WeightEntry> entries_;
  std::unordered_map<std::string, uint32_t> by_name_;
  std::vector<std::string> notes_;
  uint32_t experts_per_token_ = 1;
  Residency residency_;
  std::vector<uint32_t> files_in_use_;                 // that hold what does not stay
  std::vector<PlacedRows> placed_;                     // of what stays
  std::vector<std::pair<size_t, size_t>> windows_of_;  // by entry
  const MemorySource* memory_source_ = nullptr;
  PageMemory memory_;
  std::unique_ptr<WeightReader> reader_;
  std::unique_ptr<WindowRing> ring_;
  std::unique_ptr<ExpertSlots> slots_;
  mutable std::span<const model::ExpertGroup> resident_;  // requested, of a layer that stays
  mutable uint64_t row_bytes_read_ = 0;                   // by decode_row
  bool guesses_ = false;
  ExpertTrace* expert_trace_ = nullptr;
  std::unordered_map<uint32_t, uint32_t> trace_layer_of_;  // of the entry that requests name
};

}  // namespace sluice::runtime
