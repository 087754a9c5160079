#include "convert/checkpointer.h"

#include <algorithm>
#include <utility>

namespace sluice::convert {
namespace {

// Of a shard, before it is carried on: large enough for sequential writing, small in memory.
constexpr uint64_t kWriteBehindBytes = 16 << 20;

}  // namespace

Json result_to_json(uint32_t module, const ModuleResult& result) {
  Json record{{"module", module},
              {"source", result.source.hex()},
              {"weight", result.weight.hex()},
              {"scales", result.scales.hex()},
              {"biases", result.biases.hex()},
              {"squared_error", result.error.squared_error},
              {"squared_weight", result.error.squared_weight},
              {"error_max", result.error.error_max}};
  if (result.proved) record["proved"] = true;
  return record;
}

Checkpointer::Checkpointer(const stream::OutputLayout& layout,
                           std::span<const std::unique_ptr<io::WritableFile>> files,
                           io::Journal& journal, std::vector<std::optional<ModuleResult>>& results,
                           uint64_t bytes_per_checkpoint)
    : layout_(layout),
      files_(files),
      journal_(journal),
      results_(results),
      bytes_per_checkpoint_(bytes_per_checkpoint),
      unflushed_(files.size()),
      thread_([this] { work(); }) {}

Checkpointer::~Checkpointer() {
  MutexLock lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

Status Checkpointer::failure() {
  if (!error_) return {};
  return std::unexpected(*error_);
}

// Batches follow from the order and size of modules alone, so that a run's operations are the same
// however long the disk takes.
void Checkpointer::hand_over() {
  while (!batch_.empty()) changed_.wait(mutex_);
  if (error_) return;
  batch_ = std::exchange(pending_, {});
  pending_bytes_ = 0;
  changed_.notify_all();
}

Status Checkpointer::add(uint32_t module, const ModuleResult& result, uint64_t bytes) {
  pending_.push_back({module, result});
  pending_bytes_ += bytes;
  MutexLock lock(mutex_);
  if (pending_bytes_ >= bytes_per_checkpoint_) hand_over();
  return failure();
}

Status Checkpointer::finish() {
  MutexLock lock(mutex_);
  hand_over();
  while (!batch_.empty()) changed_.wait(mutex_);
  return failure();
}

void Checkpointer::wrote(uint32_t shard, uint64_t bytes) {
  const uint64_t before = unflushed_[shard].fetch_add(bytes, std::memory_order_relaxed);
  if (before / kWriteBehindBytes == (before + bytes) / kWriteBehindBytes) return;
  MutexLock lock(mutex_);
  if (std::ranges::find(to_flush_, shard) == to_flush_.end()) to_flush_.push_back(shard);
  changed_.notify_all();
}

std::optional<Checkpointer::Job> Checkpointer::next_job() {
  MutexLock lock(mutex_);
  while (batch_.empty() && to_flush_.empty() && !stopping_) changed_.wait(mutex_);
  if (stopping_ && batch_.empty()) return std::nullopt;
  return Job{std::exchange(to_flush_, {}), batch_};
}

void Checkpointer::saved(Status status) {
  MutexLock lock(mutex_);
  // What a failed sync left behind is unknown, and a second one would succeed and lie.
  if (!status) error_ = std::move(status).error();
  batch_.clear();
  changed_.notify_all();
}

void Checkpointer::work() {
  while (const auto job = next_job()) {
    for (const uint32_t shard : job->shards) files_[shard]->write_behind();
    if (!job->batch.empty()) saved(save(job->batch));
  }
}

Status Checkpointer::save(const std::vector<Pending>& batch) {
  for (uint32_t shard = 0; shard < files_.size(); ++shard) {
    const bool touched = std::ranges::any_of(
        batch, [&](const Pending& done) { return layout_.places[done.module].shard == shard; });
    if (!touched) continue;
    SLUICE_TRY(files_[shard]->sync());
    files_[shard]->write_behind();
  }
  for (const Pending& done : batch) {
    SLUICE_TRY(journal_.append(result_to_json(done.module, done.result)));
    results_[done.module] = done.result;
  }
  return journal_.sync();
}

}  // namespace sluice::convert
