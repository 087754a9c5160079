#include "verify/verify.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "kernels/decode.h"
#include "stream/output_layout.h"
#include "stream/stream.h"
#include "verify/block_prover.h"
#include "verify/error_directions.h"
#include "verify/output.h"
#include "verify/small_files.h"

namespace sluice::verify {
namespace {

using allocate::PlannedTensor;
using families::ModelMap;
using families::OutputModule;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantMode;
using stream::RowBlock;

// Prices use a reciprocal where encoding divides; this covers the difference with room to spare.
// In a small module a single near-tie that falls the other way is visible.
constexpr double kPredictionToleranceDb = 0.1;
constexpr double kSmallPredictionToleranceDb = 0.5;
constexpr uint64_t kSmallElements = 65536;
// What feedback may cost in closeness of the weights themselves.
constexpr double kFeedbackLossDb = 6;

// One module's tensors in the output; scales and biases where there are any.
struct OutputPlace {
  const io::StoredTensor* weight = nullptr;
  const io::StoredTensor* scales = nullptr;
  const io::StoredTensor* biases = nullptr;
};

struct BlockResult {
  Digest source, weight, scales, biases;
  ErrorStats error;
  Findings findings;
};

class VerifyVisitor : public stream::Visitor {
 public:
  VerifyVisitor(const io::Checkpoint& checkpoint, const ModelMap& map, const allocate::Plan& plan,
                const Output& output, Findings& findings, const VerifyOptions& options)
      : checkpoint_(checkpoint),
        map_(map),
        plan_(plan),
        output_(output),
        findings_(findings),
        options_(options),
        prover_(checkpoint, map, plan, options.workers, options.simd, options.activations),
        directions_(map, plan),
        scratch_(options.workers),
        states_(map.modules.size()) {}

  // Modules whose tensors are there in the right shapes; the others have their finding already.
  std::vector<uint32_t> comparable_modules();
  void list_companions(const OutputModule& module, const stream::Block& block,
                       std::vector<stream::ByteRange>& ranges) const override;
  Status visit(const RowBlock& block, unsigned worker) override;
  Status finish_module(uint32_t module) override;

  // In place of streaming: reads the output alone, and holds it against the digests of what was
  // proved while it was made. The same order of calls to finish_module().
  Status hold_against_record(std::span<const uint32_t> modules);

  std::vector<RoleQuality> roles() const;
  uint64_t reencoded_modules() const { return reencoded_; }
  uint64_t lossless_modules() const { return lossless_; }
  const ErrorDirections& directions() const { return directions_; }

 private:
  struct Scratch {
    std::vector<std::byte> weight, scales, biases;  // as found
  };

  void take_output(const RowBlock& block, Scratch& scratch) const;
  Result<std::vector<BlockResult>> digest_output(uint32_t module,
                                                 std::vector<std::byte>& buffer) const;
  void check_digests(const OutputModule& module, const std::vector<BlockResult>& blocks,
                     QuantMode mode);
  void check_recorded_source(const OutputModule& module, const Digest& recorded);
  void check_error(const OutputModule& module, const PlannedTensor& planned,
                   const ErrorStats& error);
  void note_quality(const OutputModule& module, const ErrorStats& error);

  const io::Checkpoint& checkpoint_;
  const ModelMap& map_;
  const allocate::Plan& plan_;
  const Output& output_;
  Findings& findings_;
  const VerifyOptions& options_;
  BlockProver prover_;
  ErrorDirections directions_;
  std::vector<Scratch> scratch_;
  std::vector<OutputPlace> places_;

  Mutex mutex_;
  std::vector<std::unique_ptr<std::vector<BlockResult>>> states_ GUARDED_BY(mutex_);

  // finish_module only.
  std::map<std::string, RoleQuality> roles_;
  uint64_t reencoded_ = 0, lossless_ = 0;
};

std::vector<uint32_t> VerifyVisitor::comparable_modules() {
  std::vector<uint32_t> comparable;
  places_.resize(map_.modules.size());
  for (uint32_t i = 0; i < map_.modules.size(); ++i) {
    const OutputModule& module = map_.modules[i];
    const PlannedTensor* planned = plan_.find(module.tensor_name());
    if (planned == nullptr) continue;
    const auto expected = stream::output_tensors(stream::layout_module(checkpoint_, map_, module),
                                                 planned->format, map_.dtype);
    const io::StoredTensor* found[3] = {};
    bool complete = true;
    for (size_t part = 0; part < expected.size(); ++part) {
      const auto tensor = output_.tensors.find(expected[part].name);
      complete =
          complete && tensor != output_.tensors.end() && tensor->second.info == expected[part];
      if (complete) found[part] = &tensor->second;
    }
    if (!complete) continue;
    places_[i] = {found[0], found[1], found[2]};
    comparable.push_back(i);
  }
  return comparable;
}

// The block's rows of each tensor of the output, read ahead by the engine.
void VerifyVisitor::list_companions(const OutputModule& module, const stream::Block& block,
                                    std::vector<stream::ByteRange>& ranges) const {
  const OutputPlace& place = places_[block.module];
  for (const io::StoredTensor* tensor : {place.weight, place.scales, place.biases}) {
    if (tensor == nullptr) continue;
    const uint64_t row_bytes = tensor->bytes / module.rows();
    ranges.push_back({output_.files[tensor->file].get(),
                      tensor->offset + block.first_row * row_bytes, row_bytes * block.rows,
                      tensor->info.name});
  }
}

void VerifyVisitor::take_output(const RowBlock& block, Scratch& scratch) const {
  size_t next = 0;
  const OutputPlace& place = places_[block.block.module];
  const auto take = [&](const io::StoredTensor* tensor, std::vector<std::byte>& out) {
    out.clear();
    if (tensor == nullptr) return;
    const std::span<const std::byte> found = block.companions[next++];
    out.assign(found.begin(), found.end());
  };
  take(place.weight, scratch.weight);
  take(place.scales, scratch.scales);
  take(place.biases, scratch.biases);
}

Status VerifyVisitor::visit(const RowBlock& block, unsigned worker) {
  Scratch& scratch = scratch_[worker];
  take_output(block, scratch);
  BlockResult result;
  const MadeBlock made{scratch.weight, scratch.scales, scratch.biases};
  SLUICE_ASSIGN(result.error, prover_.check(block, made, worker, result.findings));
  directions_.add(block, made);
  result.source = digest_of(block.source);
  result.weight = digest_of(scratch.weight);
  result.scales = digest_of(scratch.scales);
  result.biases = digest_of(scratch.biases);
  MutexLock lock(mutex_);
  auto& state = states_[block.block.module];
  if (state == nullptr)
    state = std::make_unique<std::vector<BlockResult>>(block.grid.block_count());
  (*state)[block.block.index] = std::move(result);
  return {};
}

// Conversion and analysis must have seen the same bytes of the source.
void VerifyVisitor::check_recorded_source(const OutputModule& module, const Digest& recorded) {
  const Digest& analyzed = plan_.find(module.tensor_name())->source;
  if (analyzed != Digest{} && analyzed != recorded)
    findings_.add(module.tensor_name(),
                  fmt::format("its source's digest is {} in sluice.json, the analysis found {}",
                              recorded.hex(), analyzed.hex()));
}

Result<std::vector<BlockResult>> VerifyVisitor::digest_output(
    uint32_t index, std::vector<std::byte>& buffer) const {
  SLUICE_ASSIGN(const stream::BlockGrid grid, stream::make_grid(map_.modules[index]));
  std::vector<BlockResult> blocks(grid.block_count());
  const OutputPlace& place = places_[index];
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    const stream::Block block = grid.block(index, i);
    const auto digest = [&](const io::StoredTensor* tensor) -> Result<Digest> {
      if (tensor == nullptr) return digest_of(std::span<const std::byte>());
      const uint64_t row_bytes = tensor->bytes / map_.modules[index].rows();
      buffer.resize(row_bytes * block.rows);
      SLUICE_TRY(output_.files[tensor->file]->read_at(tensor->offset + block.first_row * row_bytes,
                                                      buffer));
      return digest_of(buffer);
    };
    SLUICE_ASSIGN(blocks[i].weight, digest(place.weight));
    SLUICE_ASSIGN(blocks[i].scales, digest(place.scales));
    SLUICE_ASSIGN(blocks[i].biases, digest(place.biases));
  }
  return blocks;
}

Status VerifyVisitor::hold_against_record(std::span<const uint32_t> modules) {
  std::atomic<size_t> next{0};
  Mutex order;  // of finishing
  size_t next_to_finish = 0;
  std::vector<bool> read(modules.size());
  std::optional<Error> error;
  const auto read_modules = [&] {
    std::vector<std::byte> buffer;
    for (size_t i = next++; i < modules.size(); i = next++) {
      Result<std::vector<BlockResult>> blocks = fail(ErrorCode::kCancelled, "interrupted");
      if (options_.cancel == nullptr || !options_.cancel->cancelled())
        blocks = digest_output(modules[i], buffer);
      MutexLock lock(order);
      if (!blocks) {
        if (!error) error = std::move(blocks).error();
        next = modules.size();
        return;
      }
      {
        MutexLock states_lock(mutex_);
        states_[modules[i]] = std::make_unique<std::vector<BlockResult>>(std::move(*blocks));
      }
      read[i] = true;
      const uint32_t done[] = {modules[i]};
      if (options_.progress != nullptr)
        options_.progress->advance(stream::source_bytes(checkpoint_, map_, done));
      for (; next_to_finish < read.size() && read[next_to_finish]; ++next_to_finish)
        SLUICE_CHECK(finish_module(modules[next_to_finish]).has_value());
    }
  };
  {
    std::vector<Thread> threads;
    for (unsigned i = 0; i < stream::reader_count(options_.workers); ++i)
      threads.emplace_back(read_modules);
  }
  if (error) return std::unexpected(std::move(*error));
  return {};
}

void VerifyVisitor::check_digests(const OutputModule& module,
                                  const std::vector<BlockResult>& blocks, QuantMode mode) {
  const auto recorded = output_.recorded.find(module.tensor_name());
  if (recorded == output_.recorded.end()) {
    findings_.add(module.tensor_name(), "sluice.json has no record of it");
    return;
  }
  const auto compare = [&](const std::string& subject, std::string_view what,
                           Digest BlockResult::* field, const Digest& expected) {
    Hasher hasher;
    for (const BlockResult& block : blocks) hasher.update(block.*field);
    if (const Digest found = hasher.finish(); found != expected)
      findings_.add(subject, fmt::format("{} digest is {}, sluice.json recorded {}", what,
                                         found.hex(), expected.hex()));
  };
  if (options_.source_proved)
    check_recorded_source(module, recorded->second.source);
  else
    compare(module.tensor_name(), "its source's", &BlockResult::source, recorded->second.source);
  compare(module.tensor_name(), "its", &BlockResult::weight, recorded->second.weight);
  if (mode == QuantMode::kFloat) return;
  compare(module.path + ".scales", "its", &BlockResult::scales, recorded->second.scales);
  if (mode != QuantMode::kAffine) return;
  compare(module.path + ".biases", "its", &BlockResult::biases, recorded->second.biases);
}

void VerifyVisitor::check_error(const OutputModule& module, const PlannedTensor& planned,
                                const ErrorStats& error) {
  const auto recorded = output_.recorded.find(module.tensor_name());
  if (recorded != output_.recorded.end() && recorded->second.error != error) {
    const ErrorStats& claimed = recorded->second.error;
    findings_.add(
        module.tensor_name(),
        fmt::format("its squared error is {} of {}, at most {} in one weight; sluice.json "
                    "recorded {} of {}, at most {}",
                    error.squared_error, error.squared_weight, error.error_max,
                    claimed.squared_error, claimed.squared_weight, claimed.error_max));
  }
  if (plan_.data().analysis == Digest{}) return;  // a uniform plan predicts nothing
  const double predicted = sqnr_db(planned.error), found = sqnr_db(error);
  const bool both_exact = std::isinf(predicted) && std::isinf(found);
  const double tolerance =
      module.elements() < kSmallElements ? kSmallPredictionToleranceDb : kPredictionToleranceDb;
  // Feedback lets weights err so that products do not; the plan's figure is that of a search for
  // close weights.
  const bool expected = planned.encoder == Encoder::kFeedback
                            ? predicted - found <= kFeedbackLossDb
                            : std::fabs(predicted - found) <= tolerance;
  if (!both_exact && !expected)
    findings_.add(module.tensor_name(), fmt::format("its SQNR is {:.2f} dB, the plan predicted "
                                                    "{:.2f} dB",
                                                    found, predicted));
}

void VerifyVisitor::note_quality(const OutputModule& module, const ErrorStats& error) {
  RoleQuality& role = roles_[std::string(role_name(module.role))];
  const double db = sqnr_db(error);
  if (role.modules++ == 0 || db < role.worst_sqnr_db) {
    role.worst_sqnr_db = db;
    role.worst_tensor = module.tensor_name();
  }
  role.role = role_name(module.role);
  role.error.merge(error);
}

Status VerifyVisitor::finish_module(uint32_t index) {
  const OutputModule& module = map_.modules[index];
  const PlannedTensor& planned = *plan_.find(module.tensor_name());
  std::unique_ptr<std::vector<BlockResult>> blocks;
  {
    MutexLock lock(mutex_);
    blocks = std::move(states_[index]);
  }
  if (blocks == nullptr) blocks = std::make_unique<std::vector<BlockResult>>();
  const QuantMode mode = planned.format.mode;
  check_digests(module, *blocks, mode);
  ErrorStats error;
  for (const BlockResult& block : *blocks) error.merge(block.error);
  if (options_.source_proved) {
    // Measured by conversion on the bytes that the digests are of.
    const auto recorded = output_.recorded.find(module.tensor_name());
    if (recorded != output_.recorded.end()) error = recorded->second.error;
  }
  check_error(module, planned, error);
  for (BlockResult& block : *blocks) findings_.append(std::move(block.findings));
  if (mode != QuantMode::kFloat) note_quality(module, error);
  directions_.finish_module(index);
  const bool unproved_feedback =
      planned.encoder == Encoder::kFeedback && options_.activations == nullptr;
  if (planned.encoder != Encoder::kBest && !unproved_feedback) ++reencoded_;
  if (planned.encoder == Encoder::kLossless && error.squared_error == 0) ++lossless_;
  return {};
}

std::vector<RoleQuality> VerifyVisitor::roles() const {
  std::vector<RoleQuality> list;
  for (const auto& [name, role] : roles_) list.push_back(role);
  return list;
}

}  // namespace

Result<ModelMap> recorded_map(io::Storage& storage, const io::Checkpoint& checkpoint,
                              const std::string& out) {
  SLUICE_ASSIGN(const Record record, read_record(storage, out));
  return families::map_model(checkpoint, record.plan.data().dtype, record.plan.data().only_layers);
}

Result<VerifyReport> verify(io::Storage& storage, const io::Checkpoint& checkpoint,
                            const std::string& out, const VerifyOptions& options) {
  SLUICE_ASSIGN(const Record record, read_record(storage, out));
  const allocate::PlanData& plan = record.plan.data();
  if (plan.source != checkpoint.identity_digest())
    return fail(ErrorCode::kInvalidArgument,
                "{} was made from another source than {} (identity {}, recorded {})", out,
                checkpoint.path, checkpoint.identity_digest().hex(), plan.source.hex());
  if (options.activations != nullptr && options.activations->digest() != plan.activations)
    return fail(ErrorCode::kInvalidArgument,
                "{} was not made with the activations in {} (digest {}, recorded {})", out,
                options.activations->folder(), options.activations->digest().hex(),
                plan.activations.hex());
  SLUICE_ASSIGN(const ModelMap map, families::map_model(checkpoint, plan.dtype, plan.only_layers));

  Findings findings;
  SLUICE_ASSIGN(const Output output, open_output(storage, out, record.json, findings));
  if (options.part.index == 0) {
    check_loader_rules(output, record.json, checkpoint, map, record.plan, findings);
    SLUICE_TRY(check_sidecars(storage, out, checkpoint, findings));
    SLUICE_TRY(check_written_files(storage, out, record.json, record.plan, findings));
  }

  VerifyVisitor visitor(checkpoint, map, record.plan, output, findings, options);
  const std::vector<uint32_t> comparable = visitor.comparable_modules();
  const auto modules = stream::modules_of_part(checkpoint, map, comparable, options.part);
  if (options.source_proved) {
    SLUICE_TRY(visitor.hold_against_record(modules));
  } else {
    stream::StreamOptions stream_options;
    stream_options.workers = options.workers;
    stream_options.decode =
        kernels::source_decoders<stream::SourceDecoders>(kernels::kernel_table(options.simd));
    stream_options.cancel = options.cancel;
    stream_options.progress = options.progress;
    SLUICE_TRY(stream::stream_modules(checkpoint, map, modules, visitor, stream_options));
  }

  VerifyReport report;
  report.findings = findings.take(&report.finding_count);
  report.modules = map.modules.size();
  report.tensors = output.tensors.size();
  report.shards = output.files.size();
  report.weight_file_bytes = output.weight_file_bytes;
  report.budget_bytes = plan.budget_bytes;
  report.reencoded_modules = visitor.reencoded_modules();
  report.lossless_modules = visitor.lossless_modules();
  report.roles = visitor.roles();
  report.directions_measured = visitor.directions().measured();
  report.concentrated = visitor.directions().concentrated();
  report.source_read = !options.source_proved;
  return report;
}

}  // namespace sluice::verify
