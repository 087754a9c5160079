// The weights of an opened model where products can read them. All are read at start and stay
// (pinned): into anonymous memory with large reads, not mapped from the files, because pages of a
// mapping can be evicted under pressure, cannot be huge, and cost several times the CPU per byte to
// bring in. Quantized modules keep their packing, GGUF tensors their blocks; what has no kernel is
// decoded to the nearest type that has. Who asks for bytes cannot tell any of this: it gets a
// lease.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "base/thread_pool.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "numerics/weight_view.h"
#include "runtime/page_memory.h"

namespace sluice::runtime {

// One parameter. Stacked experts are one after another: expert e is rows [e·R, (e+1)·R), R = rows /
// experts. Vectors (norms, biases) are one row of f32.
struct WeightEntry {
  std::string name;  // of the tensor in the model's own terms: "model.norm.weight"
  families::Role role = families::Role::kOther;
  numerics::WeightFormat format;
  uint64_t experts = 1, rows = 0, columns = 0;
  uint64_t weight_at = 0, scales_at = 0, biases_at = 0;  // in the store's memory
  std::string storage;                                   // as it lies in memory: "MLX 4/64", "Q4_K"

  uint64_t elements() const { return rows * columns; }
  // Of codes, scales and biases, without the room behind them.
  uint64_t bytes() const;
  uint64_t bytes_per_row() const { return bytes() / rows; }
};

// Some rows of the source, and where they go. from and into equal: bytes are moved.
struct WeightTransfer {
  uint32_t file = 0;
  uint64_t offset = 0, row_bytes = 0, rows = 0;
  uint64_t to = 0, to_row_bytes = 0;
  uint64_t columns = 0;
  uint64_t head_rows = 0;  // > 0: rows of each head come interleaved (RowOrder::kUninterleaveHeads)
  numerics::DType from{}, into{};
};

class WeightStore;

// While it lives the bytes are resident and immutable, at any alignment, with 64 readable bytes
// behind each part. Move-only; must not outlive its store.
class WeightLease {
 public:
  WeightLease() = default;
  WeightLease(WeightLease&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), view_(other.view_) {}
  WeightLease& operator=(WeightLease&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(view_, other.view_);
    return *this;
  }
  ~WeightLease();
  const numerics::WeightView& view() const { return view_; }

 private:
  friend class WeightStore;
  WeightLease(const WeightStore* store, const numerics::WeightView& view)
      : store_(store), view_(view) {}
  const WeightStore* store_ = nullptr;
  numerics::WeightView view_;
};

// Planned, then loaded by one thread; const methods are thread-safe afterwards.
class WeightStore {
 public:
  // Lays out memory; reads nothing. kUnsupported for storage that products cannot read.
  static Result<std::unique_ptr<WeightStore>> plan(std::shared_ptr<const io::Checkpoint> checkpoint,
                                                   const families::ModelMap& map);
  ~WeightStore();

  // Reads everything. progress counts bytes of the source.
  Status load(ThreadPool& pool, Progress& progress);

  uint64_t memory_bytes() const { return memory_bytes_; }
  const std::vector<WeightEntry>& entries() const { return entries_; }
  const std::vector<std::string>& notes() const { return notes_; }
  // Index into entries(), or nothing.
  std::optional<uint32_t> find(std::string_view name) const;
  // Of the whole parameter, or of one expert. After load().
  WeightLease lease(uint32_t entry) const;
  WeightLease lease_expert(uint32_t entry, uint64_t expert) const;

 private:
  friend class WeightLease;
  WeightStore() = default;
  Status add(const families::OutputModule& module);
  uint64_t place(uint64_t bytes);
  Status transfer(const WeightTransfer& transfer, std::vector<std::byte>& staging,
                  std::vector<float>& values);

  std::shared_ptr<const io::Checkpoint> checkpoint_;
  std::vector<WeightEntry> entries_;
  std::unordered_map<std::string, uint32_t> by_name_;
  std::vector<WeightTransfer> transfers_;
  std::vector<std::string> notes_;
  uint64_t memory_bytes_ = 0;
  PageMemory memory_;
  mutable std::atomic<uint32_t> leases_{0};
};

}  // namespace sluice::runtime
