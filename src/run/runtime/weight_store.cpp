#include "runtime/weight_store.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "base/checked.h"
#include "base/mutex.h"
#include "io/aligned_buffer.h"
#include "numerics/block_codec.h"

namespace sluice::runtime {
namespace {

// How many requests the disk sees at once: a drive's queue is filled by far fewer large ones than
// small ones, and a thread that waits costs its stack.
constexpr size_t kReadThreads = 8;
// Beside a ring, for what does not go through it.
constexpr size_t kThreadsBesideRing = 2;
// Entries of a ring, of which the reader uses as many as are good for the disk.
constexpr unsigned kRingDepth = 32;

Result<std::unique_ptr<io::ReadRing>> open_ring(ReadPath path) {
  if (path == ReadPath::kThreads) return nullptr;
  auto ring = io::make_read_ring(kRingDepth);
  if (!ring && path == ReadPath::kAuto) return nullptr;
  return ring;
}

}  // namespace

Result<std::unique_ptr<WeightStore>> WeightStore::plan(
    std::shared_ptr<const io::Checkpoint> checkpoint, const families::ModelMap& map) {
  std::unique_ptr<WeightStore> store(new WeightStore);
  store->checkpoint_ = std::move(checkpoint);
  std::map<std::pair<numerics::DType, numerics::DType>, size_t> decoded;
  for (const families::OutputModule& module : modules_to_keep(*store->checkpoint_, map)) {
    SLUICE_ASSIGN(WeightEntry entry, make_entry(*store->checkpoint_, module));
    const io::StoredTensor& source =
        store->checkpoint_->tensors[module.recipe.sources.front().tensor];
    const numerics::DType resident = entry.format.dtype;
    if (source.packing == nullptr && module.shape.size() > 1 && !module.filters &&
        resident != source.info.dtype)
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
  experts_per_token_ = std::max(1u, needs.experts_per_token);
  placed_.assign(entries_.size(), {});
  uint64_t at = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!residency_.pinned[i]) continue;
    placed_[i] = place_rows(entries_[i], 0, entries_[i].rows, at);
    at = align_up(placed_[i].end, io::kDirectAlignment);
  }
  SLUICE_CHECK(at == residency_.pinned_bytes);
  std::set<uint32_t> files;
  for (size_t i = 0; i < entries_.size(); ++i)
    if (!residency_.pinned[i])
      for (const WeightPart& part : entries_[i].parts)
        for (const FileRows& source : part.sources) files.insert(source.file);
  files_in_use_.assign(files.begin(), files.end());
  windows_of_.assign(entries_.size(), {});
  for (size_t w = 0; w < residency_.windows.size(); ++w) {
    auto& [first, count] = windows_of_[residency_.windows[w].entry];
    if (count++ == 0) first = w;
  }
  return {};
}

Status WeightStore::load_pinned(ThreadPool& pool, Progress& progress) {
  SLUICE_ASSIGN(memory_, reserve_from(memory_source_, static_cast<size_t>(residency_.pinned_bytes),
                                      "the weights"));
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

Status WeightStore::load(ThreadPool& pool, Progress& progress, ReadPath path) {
  SLUICE_TRY(load_pinned(pool, progress));
  if (!residency_.reads_ahead()) return {};
  SLUICE_ASSIGN(auto ring, open_ring(path));
  const size_t threads = ring == nullptr ? kReadThreads : kThreadsBesideRing;
  reader_ = std::make_unique<WeightReader>(checkpoint_, threads, std::move(ring));
  if (!residency_.windows.empty()) {
    SLUICE_ASSIGN(ring_, WindowRing::make(entries_, residency_.windows, residency_.frames, *reader_,
                                          memory_source_));
  }
  if (!residency_.groups.empty()) {
    const ExpertSlots::Sizes sizes{experts_per_token_, residency_.slots, residency_.slots_max};
    SLUICE_ASSIGN(slots_, ExpertSlots::make(entries_, residency_.groups, sizes,
                                            SlotPolicy::kNextUse, *reader_, memory_source_));
    slots_->touch(pool);
  }
  return {};
}

StreamStatistics WeightStore::statistics() const {
  StreamStatistics found{.bytes_read = row_bytes_read_, .bytes_fetched = row_bytes_read_};
  if (reader_ != nullptr) {
    found.bytes_read += reader_->bytes_read();
    found.bytes_fetched += reader_->bytes_fetched();
  }
  if (slots_ != nullptr) {
    found.experts_requested = slots_->statistics().requests;
    found.experts_there = slots_->statistics().hits;
    found.guesses = slots_->statistics().guesses;
    found.guesses_right = slots_->statistics().guesses_right;
  }
  return found;
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

Status WeightStore::unchanged() const {
  for (const uint32_t file : files_in_use_) SLUICE_TRY(checkpoint_->files[file]->unchanged());
  return {};
}

std::pair<size_t, size_t> WeightStore::windows(uint32_t entry) const {
  const auto [first, count] = windows_of_[entry];
  return {first, first + count};
}

void WeightStore::request(uint32_t first_entry, std::span<const model::ExpertGroup> experts) const {
  resident_ = {};
  if (expert_trace_ != nullptr) {
    ExpertTrace& trace = *expert_trace_;
    ExpertTrace::Step step{.layer = trace_layer_of_.at(first_entry),
                           .first = static_cast<uint32_t>(trace.uses.size()),
                           .count = static_cast<uint32_t>(experts.size())};
    for (const model::ExpertGroup& group : experts) {
      trace.uses.push_back({group.expert, group.slots});
      step.tokens += group.slots;
    }
    step.tokens /= experts_per_token_;
    trace.steps.push_back(step);
  }
  if (slots_ == nullptr)
    resident_ = experts;
  else
    slots_->request(first_entry, experts);
}

Result<std::span<const model::ExpertGroup>> WeightStore::next_experts() const {
  if (slots_ != nullptr) return slots_->next();
  return std::exchange(resident_, {});
}

ExpertShares WeightStore::expert_shares() const {
  ExpertShares shares;
  if (slots_ == nullptr) return shares;
  for (uint32_t layer = 0; layer < residency_.groups.size(); ++layer) {
    auto& list = shares.emplace_back(entries_[residency_.groups[layer][0]].experts);
    for (uint32_t expert = 0; expert < list.size(); ++expert)
      list[expert] = slots_->table().share(layer, expert);
  }
  return shares;
}

Status WeightStore::learn(const ExpertShares& shares) {
  if (slots_ == nullptr) return {};
  const auto& groups = residency_.groups;
  bool alike = shares.size() == groups.size();
  for (size_t layer = 0; alike && layer < groups.size(); ++layer)
    alike = shares[layer].size() == entries_[groups[layer][0]].experts &&
            std::ranges::all_of(shares[layer], [](double s) { return s >= 0 && s <= 1; });
  if (!alike)
    return fail(ErrorCode::kInvalidArgument, "the experts' shares belong to another model");
  for (uint32_t layer = 0; layer < groups.size(); ++layer) slots_->learn(layer, shares[layer]);
  return slots_->fill();
}

uint64_t WeightStore::resize_experts(uint64_t bytes) {
  if (slots_ == nullptr) return 0;
  const size_t least = std::min<size_t>(size_t{2} * experts_per_token_, slots_->slots_max());
  const auto wanted = static_cast<size_t>(bytes / slots_->slot_bytes());
  slots_->resize(std::clamp(wanted, least, slots_->slots_max()));
  return slots_->slots() * slots_->slot_bytes();
}

void WeightStore::record_experts(ExpertTrace* trace) {
  expert_trace_ = trace;
  if (trace == nullptr) return;
  *trace = {};
  trace->experts_per_token = experts_per_token_;
  trace_layer_of_.clear();
  for (const ExpertSlots::Group& group : expert_groups(entries_)) {
    // Layers are told apart by the matrix that requests name, whichever of them it is.
    for (const uint32_t entry : group)
      trace_layer_of_[entry] = static_cast<uint32_t>(trace->experts.size());
    trace->experts.push_back(static_cast<uint32_t>(entries_[group[0]].experts));
  }
}

void WeightStore::record_reads(ReadTrace* trace) {
  if (reader_ != nullptr) reader_->record(trace);
}

Status WeightStore::replay_reads(const ReadTrace& trace) {
  return reader_ == nullptr ? Status() : reader_->replay(trace);
}

numerics::WeightView WeightStore::expert(uint32_t entry, uint32_t expert) const {
  if (slots_ != nullptr) return slots_->view(entry, expert);
  const auto rows = static_cast<size_t>(entries_[entry].rows / entries_[entry].experts);
  return view(entry).row_range(expert * rows, rows);
}

}  // namespace sluice::runtime
