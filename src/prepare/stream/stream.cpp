#include "stream/stream.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "base/checked.h"

namespace sluice::stream {
namespace {

using families::OutputModule;
using families::RowRun;
using io::Checkpoint;

// One module's part in the job.
struct ModuleWork {
  uint32_t module;
  ModuleSource source;
  uint32_t first_block;  // in the job's global numbering
};

// A buffer that travels from a reader to a worker and back.
struct Slot {
  std::vector<std::byte> bytes;
  std::vector<RowRun> runs;
  uint32_t work = 0;
  Block block;
};

class Job {
 public:
  Job(const Checkpoint& checkpoint, const families::ModelMap& map, Visitor& visitor,
      const StreamOptions& options)
      : checkpoint_(checkpoint),
        map_(map),
        visitor_(visitor),
        options_(options),
        reader_count_(std::clamp(options.workers, 1u, 4u)),
        slot_count_(options.workers + 2 * reader_count_),
        free_(slot_count_),
        ready_(slot_count_) {}

  Status prepare(std::span<const uint32_t> modules);
  Status run();

 private:
  Status describe(uint32_t module);
  void read_blocks();
  void visit_blocks(unsigned worker);
  Status visit_block(const Slot& slot, unsigned worker, std::vector<float>& values);
  Status complete_block(uint32_t work);
  Status finish_ready_modules() REQUIRES(finish_mutex_);
  void stop_with(Error error);

  const Checkpoint& checkpoint_;
  const families::ModelMap& map_;
  Visitor& visitor_;
  const StreamOptions& options_;
  const unsigned reader_count_;
  const size_t slot_count_;

  std::vector<ModuleWork> work_;
  std::unique_ptr<std::atomic<uint32_t>[]> blocks_left_;  // per work_
  uint32_t block_total_ = 0;
  std::atomic<uint32_t> next_block_{0};
  std::atomic<unsigned> readers_running_{0};

  BoundedQueue<Slot*> free_, ready_;

  Mutex finish_mutex_;
  size_t next_to_finish_ GUARDED_BY(finish_mutex_) = 0;
  // Blocks already read are still visited after an error, but a visitor that failed to finish a
  // module must not be asked again: it may have let go of the module's state.
  bool finish_failed_ GUARDED_BY(finish_mutex_) = false;

  Mutex error_mutex_;
  std::optional<Error> error_ GUARDED_BY(error_mutex_);
};

Status Job::prepare(std::span<const uint32_t> modules) {
  for (const uint32_t module : modules) SLUICE_TRY(describe(module));
  blocks_left_ = std::make_unique<std::atomic<uint32_t>[]>(work_.size());
  for (size_t i = 0; i < work_.size(); ++i) blocks_left_[i] = work_[i].source.grid.block_count();
  return {};
}

Status Job::describe(uint32_t index) {
  SLUICE_ASSIGN(const ModuleSource source, describe_source(checkpoint_, map_.modules[index]));
  work_.push_back({index, source, block_total_});
  const auto total = checked_add(block_total_, source.grid.block_count());
  if (!total || *total > UINT32_MAX)
    return fail(ErrorCode::kUnsupported, "{}: more blocks than {}", checkpoint_.path, UINT32_MAX);
  block_total_ = static_cast<uint32_t>(*total);
  return {};
}

void Job::stop_with(Error error) {
  {
    MutexLock lock(error_mutex_);
    if (!error_) error_ = std::move(error);
  }
  free_.close();
  ready_.close();
}

void Job::read_blocks() {
  while (true) {
    const uint32_t number = next_block_.fetch_add(1);
    if (number >= block_total_) break;
    if (options_.cancel != nullptr && options_.cancel->cancelled()) {
      stop_with({ErrorCode::kCancelled, "interrupted"});
      break;
    }
    auto slot = free_.pop();
    if (!slot) break;
    const auto work = std::prev(std::upper_bound(work_.begin(), work_.end(), number,
                                                 [](uint32_t wanted, const ModuleWork& candidate) {
                                                   return wanted < candidate.first_block;
                                                 }));
    (*slot)->work = static_cast<uint32_t>(work - work_.begin());
    (*slot)->block = work->source.grid.block(work->module, number - work->first_block);
    if (auto status = read_block(checkpoint_, map_.modules[work->module], work->source,
                                 (*slot)->block, (*slot)->runs, (*slot)->bytes);
        !status) {
      stop_with(std::move(status).error());
      break;
    }
    if (!ready_.push(*slot)) break;
  }
  if (readers_running_.fetch_sub(1) == 1) ready_.close();
}

Status Job::visit_block(const Slot& slot, unsigned worker, std::vector<float>& values) {
  const ModuleWork& work = work_[slot.work];
  const OutputModule& module = map_.modules[work.module];
  const bool decode = dtype_info(work.source.dtype).is_float && visitor_.wants_values(module);
  values.resize(decode ? slot.block.rows * module.columns() : 0);
  if (decode) options_.decode(work.source.dtype, slot.bytes, values);
  const RowBlock block{module, work.source.grid, slot.block, work.source.dtype, slot.bytes, values};
  SLUICE_TRY(visitor_.visit(block, worker));
  if (options_.progress != nullptr) options_.progress->advance(slot.bytes.size());
  return complete_block(slot.work);
}

void Job::visit_blocks(unsigned worker) {
  std::vector<float> values;
  while (auto slot = ready_.pop()) {
    if (auto status = visit_block(**slot, worker, values); !status) {
      stop_with(std::move(status).error());
      return;
    }
    free_.push(*slot);
  }
}

Status Job::complete_block(uint32_t work) {
  if (blocks_left_[work].fetch_sub(1) != 1) return {};
  MutexLock lock(finish_mutex_);
  return finish_ready_modules();
}

Status Job::finish_ready_modules() {
  while (!finish_failed_ && next_to_finish_ < work_.size() &&
         blocks_left_[next_to_finish_].load() == 0) {
    if (auto status = visitor_.finish_module(work_[next_to_finish_].module); !status) {
      finish_failed_ = true;
      return status;
    }
    ++next_to_finish_;
  }
  return {};
}

Status Job::run() {
  std::vector<Slot> slots(slot_count_);
  for (Slot& slot : slots) free_.push(&slot);
  {
    std::vector<Thread> threads;
    readers_running_ = reader_count_;
    for (unsigned i = 0; i < reader_count_; ++i) threads.emplace_back([this] { read_blocks(); });
    for (unsigned i = 0; i < options_.workers; ++i)
      threads.emplace_back([this, i] { visit_blocks(i); });
  }
  {
    MutexLock lock(error_mutex_);
    if (error_) return std::unexpected(std::move(*error_));
  }
  // Modules without elements at the end of the list have no last block to finish them.
  MutexLock lock(finish_mutex_);
  SLUICE_TRY(finish_ready_modules());
  SLUICE_CHECK(next_to_finish_ == work_.size());
  return {};
}

}  // namespace

Status stream_modules(const Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules, Visitor& visitor,
                      const StreamOptions& options) {
  SLUICE_CHECK(options.workers > 0 && options.decode != nullptr);
  Job job(checkpoint, map, visitor, options);
  SLUICE_TRY(job.prepare(modules));
  return job.run();
}

uint64_t source_bytes(const Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules) {
  uint64_t total = 0;
  for (const uint32_t index : modules) {
    const OutputModule& module = map.modules[index];
    for (const families::RowSource& source : module.recipe.sources) {
      const numerics::DType dtype = checkpoint.tensors[source.tensor].info.dtype;
      const uint64_t shape[] = {source.rows, module.columns()};
      total += numerics::tensor_bytes(dtype, shape).value_or(0);
    }
  }
  return total;
}

}  // namespace sluice::stream
