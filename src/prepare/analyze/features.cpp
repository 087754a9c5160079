#include "analyze/features.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <optional>

#include "analyze/matrix_features.h"
#include "io/journal.h"
#include "kernels/decode.h"
#include "kernels/kernel_table.h"
#include "stream/stream.h"
#include "stream/values.h"

namespace sluice::analyze {
namespace {

using families::ModelMap;
using families::OutputModule;

// For all sketches together; the rest of 256 MB is for blocks and the program.
constexpr uint64_t kSketchesBytesMax = 192ull << 20;
// Blocks that one module's stream holds.
constexpr uint64_t kStreamBytes = 5ull << 20;

// Six digits: what the last bits are depends on nothing that matters.
Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0) return 0.0;
  const double scale = std::pow(10, 5 - std::floor(std::log10(std::abs(value))));
  return std::isfinite(scale) ? std::round(value * scale) / scale : value;
}

Json matrix_json(uint64_t rows, const Spectrum& spectrum,
                 const std::optional<GroupKurtosis>& kurtosis) {
  Json json{{"rows", rows},
            {"rank", spectrum.rank},
            {"exact", spectrum.exact},
            {"squared_norm", rounded(spectrum.squared_norm)},
            {"stable_rank", rounded(spectrum.stable_rank)},
            {"tail_mass", rounded(spectrum.tail_mass)},
            {"spectral_spread", rounded(spectrum.spectral_spread)},
            {"groups", kurtosis ? kurtosis->groups : 0}};
  if (kurtosis)
    json["kurtosis"] = {{"p90", rounded(kurtosis->p90)},
                        {"p99_minus_p50", rounded(kurtosis->p99_minus_p50)},
                        {"max_minus_median", rounded(kurtosis->max_minus_median)},
                        {"share_beyond_3_sigma", rounded(kurtosis->share_beyond_3_sigma)}};
  return json;
}

// The blocks of one module, in row order: its stream has one reader and one worker.
class ModuleFeatures : public stream::Visitor {
 public:
  ModuleFeatures(const io::Checkpoint& checkpoint, const ModelMap& map,
                 const kernels::KernelTable& kernels)
      : checkpoint_(checkpoint), map_(map), kernels_(kernels) {}

  Status visit(const stream::RowBlock& block, unsigned) override {
    SLUICE_CHECK(block.block.index == next_block_);
    SLUICE_TRY(stream::check_values(
        checkpoint_, block, map_.dtype,
        [this](std::span<const float> row) { return kernels_.find_unencodable(row); }));
    const uint64_t columns = block.module.columns();
    if (next_block_++ % block.grid.blocks_per_expert == 0) begin_matrix(columns);
    const auto values = stream::values_in_dtype(block, map_.dtype, buffer_);
    sketch_.add_rows(values);
    for (uint64_t row = 0; row < block.block.rows; ++row)
      kurtosis_.add_row(values.subspan(row * columns, columns));
    rows_ += block.block.rows;
    if (next_block_ % block.grid.blocks_per_expert == 0)
      matrices_.push_back(matrix_json(rows_, sketch_.finish(), kurtosis_.finish()));
    return {};
  }

  Status finish_module(uint32_t) override { return {}; }

  // Of the module that was streamed; ready for the next.
  Json take() {
    next_block_ = 0;
    Json matrices = std::move(matrices_);
    matrices_ = Json::array();
    return matrices;
  }

 private:
  void begin_matrix(uint64_t columns) {
    sketch_.reset(columns);
    kurtosis_.reset();
    rows_ = 0;
  }

  const io::Checkpoint& checkpoint_;
  const ModelMap& map_;
  const kernels::KernelTable& kernels_;
  SpectrumSketch sketch_;
  KurtosisHistogram kurtosis_;
  std::vector<float> buffer_;
  uint32_t next_block_ = 0;
  uint64_t rows_ = 0;
  Json matrices_ = Json::array();
};

bool has_features(const OutputModule& module) {
  return module.quantizable && module.elements() > 0;
}

Json header_json(const io::Checkpoint& checkpoint, const ModelMap& map, uint64_t modules) {
  return {{"kind", "features"},
          {"version", 1},
          {"source", checkpoint.identity_digest().hex()},
          {"family", map.family},
          {"dtype", map.dtype_name},
          {"rank_max", kSketchRankMax},
          {"modules", modules}};
}

// All threads of one run: who takes which module next, and records in module order.
class FeatureJob {
 public:
  FeatureJob(const io::Checkpoint& checkpoint, const ModelMap& map, const FeatureOptions& options,
             io::Journal& journal, std::span<const uint32_t> modules)
      : checkpoint_(checkpoint),
        map_(map),
        options_(options),
        kernels_(kernels::kernel_table(options.simd)),
        journal_(journal),
        modules_(modules) {}

  Status run(unsigned threads) {
    {
      std::vector<Thread> pool;
      for (unsigned i = 0; i < threads; ++i) pool.emplace_back([this] { work(); });
    }
    MutexLock lock(mutex_);
    if (error_) return std::unexpected(std::move(*error_));
    return {};
  }

 private:
  void work() {
    ModuleFeatures visitor(checkpoint_, map_, kernels_);
    stream::StreamOptions stream_options;
    stream_options.readers = 1;  // in order
    stream_options.decode = kernels::source_decoders<stream::SourceDecoders>(kernels_);
    stream_options.cancel = options_.cancel;
    stream_options.progress = options_.progress;
    while (!stopped_) {
      const size_t place = next_.fetch_add(1);
      if (place >= modules_.size()) return;
      const uint32_t module[] = {modules_[place]};
      Status status = stream::stream_modules(checkpoint_, map_, module, visitor, stream_options);
      MutexLock lock(mutex_);
      if (status) {
        finished_[place] = record(map_.modules[module[0]], visitor.take());
        status = append_finished();
      }
      if (status) continue;
      stopped_ = true;
      if (!error_) error_ = std::move(status).error();
    }
  }

  static Json record(const OutputModule& module, Json matrices) {
    return {{"tensor", module.tensor_name()},
            {"role", role_name(module.role)},
            {"layer", module.layer},
            {"columns", module.columns()},
            {"matrices", std::move(matrices)}};
  }

  Status append_finished() REQUIRES(mutex_) {
    while (!finished_.empty() && finished_.begin()->first == written_) {
      SLUICE_TRY(journal_.append(finished_.begin()->second));
      finished_.erase(finished_.begin());
      ++written_;
    }
    return {};
  }

  const io::Checkpoint& checkpoint_;
  const ModelMap& map_;
  const FeatureOptions& options_;
  const kernels::KernelTable& kernels_;
  io::Journal& journal_;
  const std::span<const uint32_t> modules_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  std::map<size_t, Json> finished_ GUARDED_BY(mutex_);  // by place, waiting for earlier ones
  size_t written_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

// What a features file already holds.
struct Found {
  bool begun = false, complete = false;
  uint64_t modules = 0, matrices = 0;
};

Status check_record(const Json& record, const Json& header, const std::string& path, Found& found) {
  if (!found.begun) {
    if (record != header)
      return fail(ErrorCode::kInvalidArgument,
                  "{} is no features file of this source and type (or the source has changed "
                  "since); choose another file or remove it",
                  path);
    found.begun = true;
  } else if (record.contains("complete")) {
    found.complete = true;
  } else {
    SLUICE_ASSIGN(const Json* matrices, json_array(record, "matrices", path));
    ++found.modules;
    found.matrices += matrices->size();
  }
  return {};
}

}  // namespace

FeatureMemory feature_memory(const ModelMap& map, unsigned workers) {
  uint64_t largest = 0;
  for (const OutputModule& module : map.modules)
    if (has_features(module)) largest = std::max(largest, sketch_bytes(module.columns()));
  const uint64_t each = largest + kStreamBytes;
  const uint64_t threads = std::clamp<uint64_t>(kSketchesBytesMax / each, 1, std::max(workers, 1u));
  return {static_cast<unsigned>(threads), threads * each};
}

Result<FeatureSummary> write_features(io::Storage& storage, const io::Checkpoint& checkpoint,
                                      const ModelMap& map, const std::string& path,
                                      const FeatureOptions& options) {
  std::vector<uint32_t> modules;
  FeatureSummary summary;
  for (uint32_t i = 0; i < map.modules.size(); ++i) {
    if (!has_features(map.modules[i])) continue;
    modules.push_back(i);
    summary.matrices += map.modules[i].experts();
  }
  summary.modules = modules.size();
  summary.memory = feature_memory(map, options.workers);
  const Json header = header_json(checkpoint, map, modules.size());
  SLUICE_ASSIGN(const auto lock, storage.lock(path));
  Found found;
  SLUICE_ASSIGN(const auto journal, io::Journal::open(storage, path, [&](const Json& record) {
                  return check_record(record, header, path, found);
                }));
  if (!found.begun) SLUICE_TRY(journal->append(header));
  if (found.complete) return summary;
  if (found.modules > modules.size())
    return fail(ErrorCode::kCorrupt, "{}: {} modules, the model has {}", path, found.modules,
                modules.size());
  const auto remaining = std::span(modules).subspan(found.modules);
  if (options.log != nullptr && found.modules > 0)
    options.log->info(fmt::format("{}: features of {} of {} modules were found before", path,
                                  found.modules, modules.size()));
  if (options.progress != nullptr)
    options.progress->begin("features", stream::source_bytes(checkpoint, map, remaining));
  FeatureJob job(checkpoint, map, options, *journal, remaining);
  SLUICE_TRY(job.run(summary.memory.threads));
  SLUICE_TRY(journal->append({{"complete", true}}));
  SLUICE_TRY(journal->sync());
  return summary;
}

}  // namespace sluice::analyze
