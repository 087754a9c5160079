#include "analyze/analyze.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <unordered_map>

#include "io/journal.h"
#include "kernels/decode.h"
#include "kernels/kernel_table.h"
#include "numerics/block_codec.h"
#include "numerics/squared_sum.h"
#include "stream/output_layout.h"
#include "stream/stream.h"
#include "stream/values.h"

namespace sluice::analyze {
namespace {

using allocate::Candidate;
using families::OutputModule;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantFormat;
using numerics::QuantMode;
using stream::RowBlock;

// A killed pass repeats at most this many modules after a power loss (none after a mere kill).
constexpr uint64_t kRecordsPerSync = 32;

// Prices square in f32, which loses errors below 10⁻¹⁹ and overflows above 10¹⁹. A row whose mean
// square lies outside these bounds is encoded instead and measured in f64.
constexpr double kMeanSquareMin = 1e-30;
constexpr double kMeanSquareMax = 1e30;

// What one block contributes to one candidate.
struct CandidateSums {
  double squared_error = 0;
  double error_max = 0;
  double worst_row = 0;  // largest NRMSE² of a row
};

struct BlockSums {
  std::vector<CandidateSums> candidates;
  double squared_weight = 0;
  std::vector<bool> movable;  // of each lossless candidate: every row moves
  bool scalable[numerics::kFpCandidates] = {true, true, true};  // MLX can encode every row
  Digest source;
};

// The place of a format among AffinePrices.
size_t affine_index(const QuantFormat& format) {
  const auto bits = std::ranges::find(numerics::kAffineBits, format.bits);
  const auto group = std::ranges::find(numerics::kAffineGroups, format.group_size);
  return numerics::affine_candidate_index(
      static_cast<size_t>(bits - std::begin(numerics::kAffineBits)),
      static_cast<size_t>(group - std::begin(numerics::kAffineGroups)));
}

// The place of a format among kFpFormats.
size_t fp_index(const QuantFormat& format) {
  return static_cast<size_t>(std::ranges::find(numerics::kFpFormats, format) -
                             std::begin(numerics::kFpFormats));
}

double db(double nrmse_squared) { return -10 * std::log10(nrmse_squared); }

// The candidates of one module, and what its blocks found so far. Blocks are written by different
// workers into places of their own.
struct ModuleState {
  std::vector<Candidate> candidates;      // formats, encoders and bytes; errors still zero
  std::vector<size_t> lossless;           // indices of the lossless candidates
  std::vector<QuantFormat> best_formats;  // of the affine best candidates, in their order
  bool has_fp = false;
  std::vector<BlockSums> blocks;
};

class AnalyzeVisitor : public stream::Visitor {
 public:
  AnalyzeVisitor(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                 const AnalyzeOptions& options, io::Journal& journal)
      : checkpoint_(checkpoint),
        map_(map),
        options_(options),
        kernels_(kernels::kernel_table(options.simd)),
        journal_(journal),
        scratch_(options.workers),
        states_(map.modules.size()) {}

  Status visit(const RowBlock& block, unsigned worker) override;
  Status finish_module(uint32_t module) override;

 private:
  struct Scratch {
    std::vector<std::byte> encoded;
    std::vector<float> rounded;
  };

  ModuleState& state_of(const RowBlock& block);
  void price_row(std::span<const float> row, const ModuleState& state, Scratch& scratch,
                 BlockSums& sums) const;
  ErrorStats fp_error(std::span<const float> row, const Candidate& candidate,
                      const numerics::FpPrices& prices, bool priced, double squared_weight,
                      BlockSums& sums) const;
  ErrorStats encoded_error(std::span<const float> row, const QuantFormat& format, Encoder encoder,
                           Scratch& scratch) const;
  static void price_cast(const RowBlock& block, std::span<const float> rounded, BlockSums& sums);
  bool moves_losslessly(const RowBlock& block, const QuantFormat& format, Scratch& scratch) const;
  Candidate merged(const ModuleState& state, const stream::BlockGrid& grid, size_t candidate) const;

  const io::Checkpoint& checkpoint_;
  const families::ModelMap& map_;
  const AnalyzeOptions& options_;
  const kernels::KernelTable& kernels_;
  io::Journal& journal_;
  std::vector<Scratch> scratch_;
  Mutex mutex_;
  // Exists from a module's first block to its last, so that memory does not grow with the model.
  std::vector<std::unique_ptr<ModuleState>> states_ GUARDED_BY(mutex_);
  uint64_t unsynced_ = 0;
};

// 16-bit first, then lossless, then parity and best of each legal affine format and fp mode.
ModuleState list_candidates(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                            const OutputModule& module, const stream::ModuleSource& source,
                            std::span<const QuantFormat> best_formats) {
  ModuleState state;
  const auto add = [&](const QuantFormat& format, Encoder encoder, DType dtype) {
    Candidate candidate;
    candidate.format = format;
    candidate.encoder = encoder;
    candidate.bytes = numerics::encoded_bytes(format, module.shape, dtype).total();
    state.candidates.push_back(candidate);
  };
  add({}, Encoder::kCast, stream::plain_dtype(checkpoint, map, module));
  if (!module.quantizable) return state;

  for (const QuantFormat& format : stream::lossless_formats(source, map.dtype)) {
    if (!can_encode(format, module.shape)) continue;
    state.lossless.push_back(state.candidates.size());
    add(format, Encoder::kLossless, map.dtype);
  }
  for (const uint8_t bits : numerics::kAffineBits) {
    for (const uint16_t group : numerics::kAffineGroups) {
      const QuantFormat format{QuantMode::kAffine, bits, group};
      if (!can_encode(format, module.shape)) continue;
      add(format, Encoder::kParity, map.dtype);
      if (std::ranges::find(best_formats, format) == best_formats.end()) continue;
      add(format, Encoder::kBest, map.dtype);
      state.best_formats.push_back(format);
    }
  }
  for (const QuantFormat& format : numerics::kFpFormats) {
    if (!can_encode(format, module.shape)) continue;
    state.has_fp = true;
    add(format, Encoder::kParity, map.dtype);
    if (std::ranges::find(best_formats, format) != best_formats.end())
      add(format, Encoder::kBest, map.dtype);
  }
  return state;
}

ModuleState& AnalyzeVisitor::state_of(const RowBlock& block) {
  MutexLock lock(mutex_);
  std::unique_ptr<ModuleState>& state = states_[block.block.module];
  if (state == nullptr) {
    state = std::make_unique<ModuleState>(
        list_candidates(checkpoint_, map_, block.module, block.stored, options_.best_formats));
    state->blocks.resize(block.grid.block_count());
  }
  return *state;
}

// The scratch memory of one encoded row.
numerics::AffineRow encoded_row(std::vector<std::byte>& buffer, const QuantFormat& format,
                                uint64_t columns, DType dtype) {
  const uint64_t shape[] = {1, columns};
  const auto bytes = numerics::encoded_bytes(format, shape, dtype);
  buffer.resize(bytes.total());
  const std::span<std::byte> all(buffer);
  return {all.first(bytes.weight), all.subspan(bytes.weight, bytes.scales), all.last(bytes.biases)};
}

ErrorStats AnalyzeVisitor::encoded_error(std::span<const float> row, const QuantFormat& format,
                                         Encoder encoder, Scratch& scratch) const {
  const auto out = encoded_row(scratch.encoded, format, row.size(), map_.dtype);
  if (encoder == Encoder::kBest) return kernels_.encode_affine_best(row, format, map_.dtype, out);
  return kernels_.encode_affine_parity(row, format, map_.dtype, numerics::ParityRule::kCpu, out);
}

// Prices are what the encoder does but for groups that it treats specially; it then says itself.
ErrorStats AnalyzeVisitor::fp_error(std::span<const float> row, const Candidate& candidate,
                                    const numerics::FpPrices& prices, bool priced,
                                    double squared_weight, BlockSums& sums) const {
  if (candidate.encoder == Encoder::kBest)
    return kernels_.encode_fp_best(row, candidate.format, map_.dtype, {});
  const size_t index = fp_index(candidate.format);
  if (priced && std::isfinite(prices.squared_error[index]))
    return {prices.squared_error[index], squared_weight, prices.error_max[index]};
  if (numerics::find_unscalable(row, candidate.format, map_.dtype) != row.size()) {
    sums.scalable[index] = false;
    return {};
  }
  return kernels_.encode_fp_parity(row, candidate.format, map_.dtype, {});
}

void AnalyzeVisitor::price_row(std::span<const float> row, const ModuleState& state,
                               Scratch& scratch, BlockSums& sums) const {
  numerics::AffinePrices prices{};
  if (row.size() % numerics::kAffineGroups[0] == 0)
    prices = kernels_.price_affine(row, map_.dtype);
  else  // nvfp4 alone
    for (const float w : row) prices.squared_weight += double{w} * double{w};
  const numerics::FpPrices fp_prices =
      state.has_fp ? kernels_.price_fp(row, map_.dtype) : numerics::FpPrices{};
  const double mean_square = prices.squared_weight / static_cast<double>(row.size());
  const bool priced = mean_square >= kMeanSquareMin && mean_square <= kMeanSquareMax;
  numerics::BestPrice best_prices[numerics::kAffineCandidates];
  kernels_.price_best(row, state.best_formats, map_.dtype,
                      std::span(best_prices).first(state.best_formats.size()));
  size_t next_best = 0;
  for (size_t i = 0; i < state.candidates.size(); ++i) {
    const Candidate& candidate = state.candidates[i];
    ErrorStats error;
    if (is_fp(candidate.format) && candidate.encoder != Encoder::kLossless) {
      error = fp_error(row, candidate, fp_prices, priced, prices.squared_weight, sums);
    } else if (candidate.encoder == Encoder::kParity) {
      const size_t price = affine_index(candidate.format);
      error = priced ? ErrorStats{prices.squared_error[price], prices.squared_weight,
                                  prices.error_max[price]}
                     : encoded_error(row, candidate.format, candidate.encoder, scratch);
    } else if (candidate.encoder == Encoder::kBest) {
      const numerics::BestPrice& price = best_prices[next_best++];
      error = priced ? ErrorStats{price.squared_error, prices.squared_weight, price.error_max}
                     : encoded_error(row, candidate.format, candidate.encoder, scratch);
    } else {
      continue;
    }
    CandidateSums& out = sums.candidates[i];
    out.squared_error += error.squared_error;
    out.error_max = std::max(out.error_max, error.error_max);
    out.worst_row = std::max(out.worst_row, nrmse_squared(error));
  }
}

// The error of storing the values in the model's own type; candidate 0.
void AnalyzeVisitor::price_cast(const RowBlock& block, std::span<const float> rounded,
                                BlockSums& sums) {
  if (rounded.data() == block.values.data()) return;
  const uint64_t columns = block.module.columns();
  CandidateSums& out = sums.candidates[0];
  for (uint64_t r = 0; r < block.block.rows; ++r) {
    const ErrorStats error =
        numerics::error_between(block.row(r), rounded.subspan(r * columns, columns));
    out.squared_error += error.squared_error;
    out.error_max = std::max(out.error_max, error.error_max);
    out.worst_row = std::max(out.worst_row, nrmse_squared(error));
  }
}

bool AnalyzeVisitor::moves_losslessly(const RowBlock& block, const QuantFormat& format,
                                      Scratch& scratch) const {
  const numerics::AffineRow row =
      encoded_row(scratch.encoded, format, block.module.columns(), map_.dtype);
  for (uint64_t r = 0; r < block.block.rows; ++r)
    if (!stream::move_row(block.stored, block.source, block.block.rows, r, format, map_.dtype, row))
      return false;
  return true;
}

Status AnalyzeVisitor::visit(const RowBlock& block, unsigned worker) {
  ModuleState& state = state_of(block);
  BlockSums& sums = state.blocks[block.block.index];
  sums.candidates.resize(state.candidates.size());
  sums.source = digest_of(block.source);
  if (block.values.empty()) return {};  // integers are copied, not priced
  const DType output =
      block.module.quantizable ? map_.dtype : stream::plain_dtype(checkpoint_, map_, block.module);
  SLUICE_TRY(stream::check_values(checkpoint_, block, output, [this](std::span<const float> row) {
    return kernels_.find_unencodable(row);
  }));
  sums.squared_weight = numerics::squared_sum(block.values);
  const auto rounded = stream::values_in_dtype(block, output, scratch_[worker].rounded);
  price_cast(block, rounded, sums);
  if (state.candidates.size() > 1) {
    const uint64_t columns = block.module.columns();
    for (uint64_t r = 0; r < block.block.rows; ++r)
      price_row(rounded.subspan(r * columns, columns), state, scratch_[worker], sums);
  }
  for (const size_t index : state.lossless)
    sums.movable.push_back(
        moves_losslessly(block, state.candidates[index].format, scratch_[worker]));
  return {};
}

// Sums over blocks in their order, so that the result does not depend on threads.
Candidate AnalyzeVisitor::merged(const ModuleState& state, const stream::BlockGrid& grid,
                                 size_t index) const {
  Candidate candidate = state.candidates[index];
  double worst_row = 0, worst_expert = -1;
  for (uint32_t expert = 0; expert < grid.experts; ++expert) {
    ErrorStats sum;
    for (uint32_t b = 0; b < grid.blocks_per_expert; ++b) {
      const BlockSums& block = state.blocks[expert * grid.blocks_per_expert + b];
      const CandidateSums& part = block.candidates[index];
      sum.merge({part.squared_error, block.squared_weight, part.error_max});
      worst_row = std::max(worst_row, part.worst_row);
    }
    candidate.error.merge(sum);
    if (const double expert_error = nrmse_squared(sum); expert_error > worst_expert) {
      worst_expert = expert_error;
      candidate.worst_expert = expert;
    }
  }
  candidate.worst_expert_sqnr_db = db(std::max(worst_expert, 0.0));
  candidate.worst_row_sqnr_db = db(worst_row);
  return candidate;
}

Status AnalyzeVisitor::finish_module(uint32_t index) {
  const OutputModule& module = map_.modules[index];
  std::unique_ptr<ModuleState> state;
  {
    MutexLock lock(mutex_);
    state = std::move(states_[index]);
  }
  SLUICE_ASSIGN(const stream::ModuleSource stored, stream::describe_source(checkpoint_, module));
  if (state == nullptr)  // a module without elements has no blocks
    state = std::make_unique<ModuleState>(
        list_candidates(checkpoint_, map_, module, stored, options_.best_formats));
  ModuleRecord record;
  record.item = {module.path,
                 module.parameter,
                 std::string(role_name(module.role)),
                 module.layer,
                 module.elements(),
                 module.bits_floor,
                 module.quantizable,
                 {},
                 {}};
  record.shape = module.shape;
  record.plain_dtype = stream::plain_dtype(checkpoint_, map_, module);
  std::vector<bool> movable(state->candidates.size(), true);
  bool scalable[numerics::kFpCandidates] = {true, true, true};
  Hasher source;
  for (const BlockSums& block : state->blocks) {
    for (size_t i = 0; i < block.movable.size(); ++i)
      if (!block.movable[i]) movable[state->lossless[i]] = false;
    for (size_t i = 0; i < numerics::kFpCandidates; ++i)
      scalable[i] = scalable[i] && block.scalable[i];
    source.update(block.source);
  }
  record.item.source = source.finish();
  for (size_t i = 0; i < state->candidates.size(); ++i) {
    const Candidate& candidate = state->candidates[i];
    if (!movable[i]) continue;
    const bool fp_parity = is_fp(candidate.format) && candidate.encoder == Encoder::kParity;
    if (fp_parity && !scalable[fp_index(candidate.format)]) continue;
    record.item.candidates.push_back(merged(*state, stored.grid, i));
  }
  SLUICE_TRY(journal_.append(record_to_json(record)));
  if (++unsynced_ < kRecordsPerSync) return {};
  unsynced_ = 0;
  return journal_.sync();
}

AnalysisHeader make_header(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                           const AnalyzeOptions& options) {
  AnalysisHeader header;
  header.source = checkpoint.identity_digest();
  header.family = map.family;
  header.dtype = map.dtype_name;
  header.layers = map.layers;
  header.only_layers = map.only_layers;
  header.kv = families::kv_shapes(checkpoint, map);
  header.modules = map.modules.size();
  for (const QuantFormat& format : options.best_formats)
    header.best_formats.push_back(format_text(format));
  header.part = options.part;
  return header;
}

// What an analysis file already holds.
struct Progressed {
  bool begun = false, complete = false;
  uint64_t modules = 0;  // records are in module order, so these are the first ones
};

Status check_record(const Json& record, const AnalysisHeader& wanted, const std::string& path,
                    Progressed& progressed) {
  if (!progressed.begun) {
    SLUICE_ASSIGN(const AnalysisHeader found, header_from_json(record, path));
    if (found.source != wanted.source)
      return fail(ErrorCode::kInvalidArgument,
                  "{} was made from another source (or the source has changed since): it records "
                  "{}, this source is {}; choose another file or remove it",
                  path, found.source.hex(), wanted.source.hex());
    if (!(found == wanted))
      return fail(ErrorCode::kInvalidArgument,
                  "{} was made with other options; choose another file or remove it", path);
    progressed.begun = true;
  } else if (record.contains("complete")) {
    progressed.complete = true;
  } else {
    ++progressed.modules;
  }
  return {};
}

}  // namespace

Result<uint64_t> analyze_part(io::Storage& storage, const io::Checkpoint& checkpoint,
                              const families::ModelMap& map, const std::string& whole_path,
                              const AnalyzeOptions& options) {
  const std::string path = stream::part_path(whole_path, options.part);
  const AnalysisHeader header = make_header(checkpoint, map, options);
  SLUICE_ASSIGN(const auto lock, storage.lock(path));
  Progressed progressed;
  SLUICE_ASSIGN(const auto journal, io::Journal::open(storage, path, [&](const Json& record) {
                  return check_record(record, header, path, progressed);
                }));
  if (!progressed.begun) {
    SLUICE_TRY(journal->append(header_to_json(header)));
    SLUICE_TRY(storage.sync_directory(io::parent_folder(path)));
  }
  std::vector<uint32_t> modules(map.modules.size());
  for (uint32_t i = 0; i < modules.size(); ++i) modules[i] = i;
  modules = stream::modules_of_part(checkpoint, map, modules, options.part);
  if (!progressed.complete) {
    const std::span<const uint32_t> remaining =
        std::span<const uint32_t>(modules).subspan(std::min(progressed.modules, modules.size()));
    if (options.log != nullptr && progressed.modules > 0)
      options.log->info(fmt::format("{}: {} of {} modules were analyzed before", path,
                                    progressed.modules, modules.size()));
    if (options.progress != nullptr)
      options.progress->begin("analyze", stream::source_bytes(checkpoint, map, remaining));
    AnalyzeVisitor visitor(checkpoint, map, options, *journal);
    stream::StreamOptions stream_options;
    stream_options.workers = options.workers;
    stream_options.decode =
        kernels::source_decoders<stream::SourceDecoders>(kernels::kernel_table(options.simd));
    stream_options.cancel = options.cancel;
    stream_options.progress = options.progress;
    SLUICE_TRY(stream::stream_modules(checkpoint, map, remaining, visitor, stream_options));
    SLUICE_TRY(journal->append({{"complete", true}}));
    SLUICE_TRY(journal->sync());
  }
  return modules.size();
}

Result<Analysis> analyze(io::Storage& storage, const io::Checkpoint& checkpoint,
                         const families::ModelMap& map, const std::string& path,
                         const AnalyzeOptions& options) {
  SLUICE_CHECK(options.part.whole());
  SLUICE_TRY(analyze_part(storage, checkpoint, map, path, options));
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  return load_analysis(*source);
}

}  // namespace sluice::analyze
