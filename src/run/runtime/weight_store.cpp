// Leases and loading; where everything goes is laid out in weight_layout.cpp.
#include "runtime/weight_store.h"

#include <algorithm>

#include "base/mutex.h"
#include "numerics/block_codec.h"

namespace sluice::runtime {

WeightLease::~WeightLease() {
  if (store_ != nullptr) store_->leases_.fetch_sub(1, std::memory_order_relaxed);
}

WeightStore::~WeightStore() { SLUICE_CHECK(leases_ == 0); }

std::optional<uint32_t> WeightStore::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

WeightLease WeightStore::lease(uint32_t entry) const {
  const WeightEntry& e = entries_[entry];
  SLUICE_DCHECK(memory_.data() != nullptr);
  leases_.fetch_add(1, std::memory_order_relaxed);
  const std::byte* base = memory_.data();
  return {this,
          {e.format, static_cast<size_t>(e.rows), static_cast<size_t>(e.columns),
           base + e.weight_at, e.scales_at == 0 ? nullptr : base + e.scales_at,
           e.biases_at == 0 ? nullptr : base + e.biases_at}};
}

WeightLease WeightStore::lease_expert(uint32_t entry, uint64_t expert) const {
  WeightLease whole = lease(entry);
  const WeightEntry& e = entries_[entry];
  SLUICE_DCHECK(expert < e.experts);
  const auto rows = static_cast<size_t>(e.rows / e.experts);
  whole.view_ = whole.view_.row_range(static_cast<size_t>(expert) * rows, rows);
  return whole;
}

Status WeightStore::transfer(const WeightTransfer& t, std::vector<std::byte>& staging,
                             std::vector<float>& values) {
  const io::ByteSource& source = *checkpoint_->files[t.file];
  std::byte* to = memory_.data() + t.to;
  const auto bytes = static_cast<size_t>(t.rows * t.row_bytes);
  if (t.head_rows == 0 && t.from == t.into) return source.read_at(t.offset, {to, bytes});
  staging.resize(bytes);
  SLUICE_TRY(source.read_at(t.offset, staging));
  values.resize(static_cast<size_t>(t.columns));
  for (uint64_t row = 0; row < t.rows; ++row) {
    uint64_t target = row;
    if (t.head_rows > 0) {  // source row 2i + half of a head is its row i + half · d/2
      const uint64_t in_head = row % t.head_rows;
      target = row - in_head + in_head / 2 + in_head % 2 * (t.head_rows / 2);
    }
    const std::span<const std::byte> in(staging.data() + row * t.row_bytes,
                                        static_cast<size_t>(t.row_bytes));
    const std::span<std::byte> out(to + target * t.to_row_bytes,
                                   static_cast<size_t>(t.to_row_bytes));
    if (t.from == t.into) {
      std::ranges::copy(in, out.begin());
      continue;
    }
    numerics::decode_elements(t.from, in, values);
    numerics::encode_elements(t.into, values, out);
  }
  return {};
}

Status WeightStore::load(ThreadPool& pool, Progress& progress) {
  SLUICE_ASSIGN(memory_, PageMemory::reserve(static_cast<size_t>(memory_bytes_), "the weights"));
  uint64_t total = 0;
  for (const WeightTransfer& t : transfers_) total += t.rows * t.row_bytes;
  progress.begin("load", total);
  struct Worker {
    std::vector<std::byte> staging;
    std::vector<float> values;
  };
  std::vector<Worker> workers(pool.threads());
  Mutex mutex;
  Status first_error;
  std::atomic<bool> failed{false};
  pool.run(transfers_.size(), [&](size_t item, size_t worker) {
    if (failed.load(std::memory_order_relaxed)) return;
    const WeightTransfer& t = transfers_[item];
    Status status = transfer(t, workers[worker].staging, workers[worker].values);
    progress.advance(t.rows * t.row_bytes);
    if (status) return;
    MutexLock lock(mutex);
    if (first_error) first_error = std::move(status);
    failed = true;
  });
  progress.end();
  transfers_ = {};
  return first_error;
}

}  // namespace sluice::runtime
