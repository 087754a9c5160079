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

// Of very small blocks, so that a unit is not a module of its own.
constexpr uint64_t kUnitBlocksMax = 64;

// One module's part in the job.
struct ModuleWork {
  uint32_t module;
  ModuleSource source;
  uint32_t blocks_per_unit;
  uint32_t first_unit;  // in the job's global numbering
};

// One block of a unit, and which of the unit's ranges are its source bytes and its companions.
// Blocks that are pieces of the same stored rows share ranges: those of the rows `read`.
struct UnitBlock {
  Block block = {}, read = {};
  size_t first_range = 0, source_ranges = 0;
  size_t first_companion = 0, companion_ranges = 0;
};

// Consecutive blocks of one module that are read together. Travels from a reader to the workers,
// who share its blocks, and from the last of them back.
struct Unit {
  uint32_t work = 0;
  std::vector<UnitBlock> blocks;
  std::atomic<size_t> blocks_taken{0}, blocks_left{0};
  RangeReader reader;
  std::vector<ByteRange> ranges;
  std::vector<RowRun> runs;
};

// What one worker keeps from block to block.
struct WorkerMemory {
  std::vector<std::byte> gathered, arranged;
  std::vector<RowRun> runs;
  std::vector<std::span<const std::byte>> companions;
  std::vector<float> values;
};

bool any_scattered(const Checkpoint& checkpoint, const families::ModelMap& map,
                   std::span<const uint32_t> modules) {
  return std::ranges::any_of(
      modules, [&](uint32_t index) { return reads_columns(checkpoint, map.modules[index]); });
}

class Job {
 public:
  Job(const Checkpoint& checkpoint, const families::ModelMap& map, Visitor& visitor,
      const StreamOptions& options, bool scattered)
      : checkpoint_(checkpoint),
        map_(map),
        visitor_(visitor),
        options_(options),
        worker_count_(scattered ? std::min(options.workers, kTransposedWorkersMax)
                                : options.workers),
        reader_count_(options.readers > 0 ? options.readers
                      : checkpoint.remote ? kRemoteReaders
                                          : reader_count(options.workers)),
        unit_count_(scattered ? kTransposedUnitsMax
                              : std::min<size_t>(worker_count_ + 2 * reader_count_, kUnitsMax)),
        free_(unit_count_),
        ready_(unit_count_ * kUnitBlocksMax) {}

  Status prepare(std::span<const uint32_t> modules);
  Status run();

 private:
  Status describe(uint32_t module);
  uint64_t read_bytes(const OutputModule& module, const ModuleSource& source,
                      const Block& block) const;
  void read_units();
  Status read_unit(uint32_t number, Unit& unit) const;
  void visit_blocks(unsigned worker);
  Status visit_block(const Unit& unit, const UnitBlock& part, unsigned worker,
                     WorkerMemory& memory);
  Status complete_block(uint32_t work);
  Status finish_ready_modules() REQUIRES(finish_mutex_);
  void stop_with(Error error);

  const Checkpoint& checkpoint_;
  const families::ModelMap& map_;
  Visitor& visitor_;
  const StreamOptions& options_;
  const unsigned worker_count_, reader_count_;
  const size_t unit_count_;

  std::vector<ModuleWork> work_;
  std::unique_ptr<std::atomic<uint32_t>[]> blocks_left_;  // per work_
  uint32_t unit_total_ = 0;
  std::atomic<uint32_t> next_unit_{0};
  std::atomic<unsigned> readers_running_{0};

  BoundedQueue<Unit*> free_;
  BoundedQueue<Unit*> ready_;  // a unit once for each of its blocks

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

// What is read for a block. Where rows or columns are left out, what lies between comes along.
uint64_t Job::read_bytes(const OutputModule& module, const ModuleSource& source,
                         const Block& block) const {
  uint64_t bytes = block.rows * source.row_bytes() * (source.has_gaps ? 2 : 1);
  std::vector<ByteRange> companions;
  visitor_.list_companions(module, block, companions);
  for (const ByteRange& range : companions) bytes += range.bytes;
  return bytes;
}

Status Job::describe(uint32_t index) {
  const OutputModule& module = map_.modules[index];
  SLUICE_ASSIGN(const ModuleSource source, describe_source(checkpoint_, module));
  const uint64_t block_bytes =
      source.grid.block_count() == 0
          ? 1
          : std::max<uint64_t>(1, read_bytes(module, source, source.grid.block(index, 0)));
  const uint64_t unit_bytes =
      source.is_scattered() ? std::max(kUnitBytes, kTransposedBytesMax / unit_count_) : kUnitBytes;
  const auto per_unit =
      static_cast<uint32_t>(std::clamp<uint64_t>(unit_bytes / block_bytes, 1, kUnitBlocksMax));
  work_.push_back({index, source, per_unit, unit_total_});
  const uint64_t blocks = source.grid.block_count();
  const auto total = checked_add(unit_total_, (blocks + per_unit - 1) / per_unit);
  if (!total || *total > UINT32_MAX)
    return fail(ErrorCode::kUnsupported, "{}: more blocks than {}", checkpoint_.path, UINT32_MAX);
  unit_total_ = static_cast<uint32_t>(*total);
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

// Finds the blocks of a unit and where their bytes lie, and reads them.
Status Job::read_unit(uint32_t number, Unit& unit) const {
  const auto work = std::prev(std::ranges::upper_bound(
      work_, number, {}, [](const ModuleWork& w) { return w.first_unit; }));
  const OutputModule& module = map_.modules[work->module];
  const BlockGrid& grid = work->source.grid;
  const uint32_t first = (number - work->first_unit) * work->blocks_per_unit;
  const uint32_t end = std::min(grid.block_count(), first + work->blocks_per_unit);
  unit.work = static_cast<uint32_t>(work - work_.begin());
  unit.blocks.clear();
  unit.ranges.clear();
  for (uint32_t index = first; index < end;) {
    Block read = grid.block(work->module, index);
    const size_t before = unit.blocks.size();
    unit.blocks.push_back({.block = read});
    while (++index < end && work->source.is_scattered() &&
           grid.expert_of(index) == grid.expert_of(read.index)) {
      unit.blocks.push_back({.block = grid.block(work->module, index)});
      read.rows += unit.blocks.back().block.rows;
    }
    const size_t first_range = unit.ranges.size();
    append_block_ranges(checkpoint_, module, work->source, read, unit.runs, unit.ranges);
    const size_t source_ranges = unit.ranges.size() - first_range;
    for (UnitBlock& part : std::span(unit.blocks).subspan(before)) {
      part.read = read;
      part.first_range = first_range;
      part.source_ranges = source_ranges;
      part.first_companion = unit.ranges.size();
      visitor_.list_companions(module, part.block, unit.ranges);
      part.companion_ranges = unit.ranges.size() - part.first_companion;
    }
  }
  unit.blocks_taken = 0;
  unit.blocks_left = unit.blocks.size();
  // What lies between the pieces of columns is many times what is wanted.
  return unit.reader.read(unit.ranges,
                          work->source.is_scattered() ? kTransposedGapBytesMax : kGapBytesMax);
}

void Job::read_units() {
  while (true) {
    const uint32_t number = next_unit_.fetch_add(1);
    if (number >= unit_total_) break;
    const auto unit = free_.pop();
    if (!unit) break;
    if (options_.cancel != nullptr && options_.cancel->cancelled()) {
      stop_with({ErrorCode::kCancelled, "interrupted"});
      break;
    }
    if (auto status = read_unit(number, **unit); !status) {
      stop_with(std::move(status).error());
      break;
    }
    // Workers may be done with all but the last block before it is pushed.
    const size_t blocks = (*unit)->blocks.size();
    for (size_t i = 0; i < blocks; ++i)
      if (!ready_.push(*unit)) break;
  }
  if (readers_running_.fetch_sub(1) == 1) ready_.close();
}

Status Job::visit_block(const Unit& unit, const UnitBlock& part, unsigned worker,
                        WorkerMemory& memory) {
  const ModuleWork& work = work_[unit.work];
  const OutputModule& module = map_.modules[work.module];
  std::span<const std::byte> source;
  if (needs_arranging(work.source)) {
    arrange_block(checkpoint_, module, work.source, part.read, part.block,
                  unit.reader.pieces(part.first_range, part.source_ranges), memory.runs,
                  memory.arranged);
    source = memory.arranged;
  } else {
    source = unit.reader.bytes(part.first_range, part.source_ranges, memory.gathered);
  }
  const bool decode = is_decodable(work.source) && visitor_.wants_values(module);
  memory.values.resize(decode ? part.block.rows * module.columns() : 0);
  if (decode) decode_block(work.source, source, part.block.rows, options_.decode, memory.values);
  memory.companions.clear();
  for (size_t i = 0; i < part.companion_ranges; ++i)
    memory.companions.push_back(unit.reader.bytes(part.first_companion + i));
  SLUICE_TRY(visitor_.visit(
      {module, work.source.grid, part.block, work.source, source, memory.values, memory.companions},
      worker));
  if (options_.progress != nullptr) options_.progress->advance(source.size());
  return complete_block(unit.work);
}

void Job::visit_blocks(unsigned worker) {
  WorkerMemory memory;
  while (const auto popped = ready_.pop()) {
    Unit& unit = **popped;
    const UnitBlock& part = unit.blocks[unit.blocks_taken.fetch_add(1)];
    if (auto status = visit_block(unit, part, worker, memory); !status) {
      stop_with(std::move(status).error());
      return;
    }
    if (unit.blocks_left.fetch_sub(1) == 1) free_.push(&unit);
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
  std::vector<Unit> units(unit_count_);
  for (Unit& unit : units) free_.push(&unit);
  {
    std::vector<Thread> threads;
    readers_running_ = reader_count_;
    for (unsigned i = 0; i < reader_count_; ++i) threads.emplace_back([this] { read_units(); });
    for (unsigned i = 0; i < worker_count_; ++i)
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

unsigned reader_count(unsigned workers) { return std::clamp(workers, 4u, 16u); }

Status stream_modules(const Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules, Visitor& visitor,
                      const StreamOptions& options) {
  SLUICE_CHECK(options.workers > 0 && options.decode.elements != nullptr);
  Job job(checkpoint, map, visitor, options, any_scattered(checkpoint, map, modules));
  SLUICE_TRY(job.prepare(modules));
  return job.run();
}

uint64_t source_bytes(const Checkpoint& checkpoint, const families::ModelMap& map,
                      std::span<const uint32_t> modules) {
  uint64_t total = 0;
  for (const uint32_t index : modules) {
    const OutputModule& module = map.modules[index];
    if (const auto source = describe_source(checkpoint, module); source)
      total += source->row_bytes() * module.rows();
  }
  return total;
}

}  // namespace sluice::stream
