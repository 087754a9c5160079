#include "runtime/weight_store.h"

#include <algorithm>
#include <atomic>
#include <map>

#include "base/checked.h"
#include "base/mutex.h"
#include "io/aligned_buffer.h"
#include "numerics/block_codec.h"

namespace sluice::runtime {
namespace {

// How many requests the disk sees at once: a drive's queue is filled by far fewer large ones than
// small ones, and a thread that waits costs its stack.
constexpr size_t kReadThreads = 8;

}  // namespace

Result<std::unique_ptr<WeightStore>> WeightStore::plan(
    std::shared_ptr<const io::Checkpoint> checkpoint, const families::ModelMap& map) {
  std::unique_ptr<WeightStore> store(new WeightStore);
  store->checkpoint_ = std::move(checkpoint);
  std::map<std::pair<numerics::DType, numerics::DType>, size_t> decoded;
  for (const families::OutputModule& module : map.modules) {
    SLUICE_ASSIGN(WeightEntry entry, make_entry(*store->checkpoint_, module));
    const io::StoredTensor& source =
        store->checkpoint_->tensors[module.recipe.sources.front().tensor];
    const numerics::DType resident = entry.format.dtype;
    if (source.packing == nullptr && module.shape.size() > 1 && resident != source.info.dtype)
      ++decoded[{source.info.dtype, resident}];
    store->by_name_.emplace(entry.name, static_cast<uint32_t>(store->entries_.size()));
    store->entries_.push_back(std::move(entry));
  }
  for (const auto& [types, count] : decoded)
    store->notes_.push_back(
        fmt::format("{} {} of type {}, for which there is no product, {} decoded to {} at load",
                    count, count == 1 ? "tensor" : "tensors", dtype_info(types.first).name,
                    count == 1 ? "is" : "are", dtype_info(types.second).name));
  SLUICE_TRY(store->arrange({}));
  return store;
}

WeightStore::~WeightStore() = default;

std::optional<uint32_t> WeightStore::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

Status WeightStore::arrange(const ResidencyNeeds& needs) {
  SLUICE_CHECK(memory_.data() == nullptr);
  SLUICE_ASSIGN(residency_, choose_residency(entries_, needs));
  placed_.assign(entries_.size(), {});
  uint64_t at = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!residency_.pinned[i]) continue;
    placed_[i] = place_rows(entries_[i], 0, entries_[i].rows, at);
    at = align_up(placed_[i].end, io::kDirectAlignment);
  }
  SLUICE_CHECK(at == residency_.pinned_bytes);
  windows_of_.assign(entries_.size(), {});
  for (size_t w = 0; w < residency_.windows.size(); ++w) {
    auto& [first, count] = windows_of_[residency_.windows[w].entry];
    if (count++ == 0) first = w;
  }
  return {};
}

Status WeightStore::load_pinned(ThreadPool& pool, Progress& progress) {
  SLUICE_ASSIGN(memory_,
                PageMemory::reserve(static_cast<size_t>(residency_.pinned_bytes), "the weights"));
  std::vector<WeightTransfer> transfers;
  for (size_t i = 0; i < entries_.size(); ++i)
    if (residency_.pinned[i]) append_transfers(entries_[i], placed_[i], memory_.data(), transfers);
  // Neighbours on disk are read one after another.
  std::ranges::sort(transfers, {},
                    [](const WeightTransfer& t) { return std::pair(t.file, t.offset); });
  uint64_t total = 0;
  for (const WeightTransfer& t : transfers) total += t.bytes();
  progress.begin("load", total);
  std::vector<TransferBuffers> buffers(pool.threads());
  Mutex mutex;
  Status first_error;
  std::atomic<bool> failed{false};
  pool.run(transfers.size(), [&](size_t item, size_t worker) {
    if (failed.load(std::memory_order_relaxed)) return;
    Status status = run_transfer(*checkpoint_, transfers[item], buffers[worker]);
    progress.advance(transfers[item].bytes());
    if (status) return;
    MutexLock lock(mutex);
    if (first_error) first_error = std::move(status);
    failed = true;
  });
  progress.end();
  return first_error;
}

Status WeightStore::load(ThreadPool& pool, Progress& progress) {
  SLUICE_TRY(load_pinned(pool, progress));
  if (!residency_.reads_ahead()) return {};
  reader_ = std::make_unique<WeightReader>(checkpoint_, kReadThreads);
  if (!residency_.windows.empty()) {
    SLUICE_ASSIGN(ring_,
                  WindowRing::make(entries_, residency_.windows, residency_.frames, *reader_));
  }
  if (!residency_.groups.empty()) {
    SLUICE_ASSIGN(slots_, ExpertSlots::make(entries_, residency_.groups, residency_.slots,
                                            residency_.policy, *reader_));
  }
  return {};
}

uint64_t WeightStore::bytes_streamed() const {
  return row_bytes_read_ + (reader_ == nullptr ? 0 : reader_->bytes_read());
}

ExpertStatistics WeightStore::expert_statistics() const {
  return slots_ == nullptr ? ExpertStatistics{} : slots_->statistics();
}

numerics::WeightView WeightStore::view(uint32_t entry) const {
  SLUICE_DCHECK(memory_.data() != nullptr && residency_.pinned[entry]);
  return view_rows(entries_[entry], placed_[entry], memory_.data());
}

Status WeightStore::decode_row(uint32_t entry, uint64_t row, std::span<float> out) const {
  const WeightEntry& e = entries_[entry];
  if (residency_.pinned[entry]) {
    numerics::decode_row(view(entry), static_cast<size_t>(row), out);
    return {};
  }
  // Rows that are interleaved come by whole heads.
  const uint64_t unit = e.row_unit(), first = row / unit * unit;
  const PlacedRows placed = place_rows(e, first, unit, 0);
  std::vector<std::byte> bytes(static_cast<size_t>(placed.end));
  std::vector<WeightTransfer> transfers;
  append_transfers(e, placed, bytes.data(), transfers);
  TransferBuffers buffers;
  for (const WeightTransfer& t : transfers) {
    SLUICE_TRY(run_transfer(*checkpoint_, t, buffers));
    row_bytes_read_ += t.bytes();
  }
  numerics::decode_row(view_rows(e, placed, bytes.data()), static_cast<size_t>(row - first), out);
  return {};
}

std::pair<size_t, size_t> WeightStore::windows(uint32_t entry) const {
  const auto [first, count] = windows_of_[entry];
  return {first, first + count};
}

void WeightStore::request(uint32_t first_entry, std::span<const model::ExpertGroup> experts) const {
  resident_ = {};
  if (slots_ == nullptr)
    resident_ = experts;
  else
    slots_->request(first_entry, experts);
}

Result<std::span<const model::ExpertGroup>> WeightStore::next_experts() const {
  if (slots_ != nullptr) return slots_->next();
  return std::exchange(resident_, {});
}

numerics::WeightView WeightStore::expert(uint32_t entry, uint32_t expert) const {
  if (slots_ != nullptr) return slots_->view(entry, expert);
  const auto rows = static_cast<size_t>(entries_[entry].rows / entries_[entry].experts);
  return view(entry).row_range(expert * rows, rows);
}

}  // namespace sluice::runtime
