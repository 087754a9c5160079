#include "convert/convert.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "base/units.h"
#include "convert/convert_visitor.h"
#include "convert/parts.h"
#include "convert/staging.h"
#include "io/journal.h"
#include "kernels/decode.h"
#include "kernels/kernel_table.h"
#include "sluice_version.h"
#include "stream/feedback_factors.h"
#include "stream/stream.h"

namespace sluice::convert {
namespace {

using allocate::Plan;
using allocate::PlannedTensor;
using families::ModelMap;
using families::OutputModule;
using numerics::QuantFormat;
using numerics::QuantMode;
using stream::OutputLayout;

// Beside shards and sidecars. Those behind sluice.json are fit's.
constexpr std::string_view kOutputFiles[] = {"config.json",    "model.safetensors.index.json",
                                             "README.md",      "sluice.json",
                                             "analysis.jsonl", "sensitivity.json",
                                             "verify.json",    "sensitivity.json.journal",
                                             "gate.json",      "report.html",
                                             "run.json"};

std::string part_text(const std::string& only_layers) {
  return only_layers.empty() ? "the whole model" : fmt::format("layers {}", only_layers);
}

// The plan's entry for every module, in module order. The plan must name exactly the map's modules.
Result<std::vector<const PlannedTensor*>> match_plan(const ModelMap& map, const Plan& plan) {
  if (plan.data().only_layers != map.only_layers)
    return fail(ErrorCode::kInvalidArgument, "the plan is for {}, this is {}",
                part_text(plan.data().only_layers), part_text(map.only_layers));
  std::vector<const PlannedTensor*> planned;
  for (const OutputModule& module : map.modules) {
    const PlannedTensor* tensor = plan.find(module.tensor_name());
    if (tensor == nullptr)
      return fail(ErrorCode::kInvalidArgument, "the plan says nothing about tensor {}",
                  module.tensor_name());
    if (tensor->elements != module.elements())
      return fail(ErrorCode::kInvalidArgument,
                  "the plan was made for a tensor {} of {} elements, here it has {}",
                  module.tensor_name(), tensor->elements, module.elements());
    planned.push_back(tensor);
  }
  if (plan.data().tensors.size() != map.modules.size())
    return fail(ErrorCode::kInvalidArgument, "the plan holds {} tensors, the model {}",
                plan.data().tensors.size(), map.modules.size());
  return planned;
}

// What every run from one checkpoint has in common.
Json checkpoint_header(const io::Checkpoint& checkpoint) {
  Hasher modified;
  for (const auto& file : checkpoint.files) modified.update(fmt::format("{};", file->version()));
  Json header{{"kind", "convert"},
              {"version", 1},
              {"tool", kVersion},
              {"source", checkpoint.identity_digest().hex()},
              {"modified", modified.finish().hex()}};
  if (!checkpoint.revision.empty()) header["revision"] = checkpoint.revision;
  return header;
}

// What every run of the same job has in common; a journal with another first record is not ours.
Json journal_header(const io::Checkpoint& checkpoint, const Plan& plan, const OutputLayout& layout,
                    const stream::Part& part) {
  Hasher headers;
  for (const stream::OutputShard& shard : layout.shards) headers.update(shard.header);
  Json header = checkpoint_header(checkpoint);
  header["plan"] = plan.digest().hex();
  header["layout"] = headers.finish().hex();
  stream::part_to_json(part, header);
  return header;
}

// Whether a journal's first record agrees with what this job would write there.
// path: of that journal.
Status check_header(const Json& record, const Json& wanted, const std::string& out,
                    const std::string& path) {
  const Json *now = json_find(wanted, "revision"), *then = json_find(record, "revision");
  if (now != nullptr && then != nullptr && then->is_string() && *now != *then)
    return fail(ErrorCode::kInvalidArgument,
                "{} was begun from commit {} of the source, which is at {} now; go on with @{} "
                "behind its name, or remove {} and {} to start anew",
                partial_path(out), then->get<std::string>(), now->get<std::string>(),
                then->get<std::string>(), partial_path(out), path);
  for (const auto& [key, what] :
       {std::pair{"source", "source (or the source has changed since)"},
        std::pair{"modified", "state of the source, whose files have been written to since"},
        std::pair{"plan", "plan"}, std::pair{"tool", "version of this program"},
        std::pair{"layout", "layout"}}) {
    const Json* expected = json_find(wanted, key);
    const Json* found = json_find(record, key);
    if (expected != nullptr && (found == nullptr || *found != *expected))
      return fail(ErrorCode::kInvalidArgument,
                  "{} was begun from another {}; remove it and {} to start anew", partial_path(out),
                  what, path);
  }
  return {};
}

// A weight file of this or another number of shards.
bool may_be_shard(std::string_view name) {
  return name.starts_with("model") && name.ends_with(".safetensors");
}

// Whatever lies in the folder would be published with it, so nothing may that is not ours.
template <class IsShard>
Status check_names(io::Storage& storage, const io::Checkpoint& checkpoint,
                   const std::string& partial, IsShard&& is_shard) {
  std::set<std::string> ours(std::begin(kOutputFiles), std::end(kOutputFiles));
  for (const io::Sidecar& sidecar : checkpoint.sidecars) ours.insert(sidecar.name);
  SLUICE_ASSIGN(const std::vector<std::string> names, storage.list_directory(partial));
  for (const std::string& found : names) {
    const bool unfinished = found.ends_with(io::kUnfinishedSuffix);
    const std::string name =
        unfinished ? found.substr(0, found.size() - io::kUnfinishedSuffix.size()) : found;
    if (!ours.contains(name) && !is_shard(name))
      return fail(ErrorCode::kInvalidArgument,
                  "{} holds {}, which is not part of this output; remove it", partial, found);
  }
  return {};
}

Result<Digest> digest_at(const Json& record, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const std::string hex, json_string(record, key, label));
  return Digest::from_hex(hex);
}

Result<ModuleResult> result_from_json(const Json& record, std::string_view label) {
  ModuleResult result;
  SLUICE_ASSIGN(result.source, digest_at(record, "source", label));
  SLUICE_ASSIGN(result.weight, digest_at(record, "weight", label));
  SLUICE_ASSIGN(result.scales, digest_at(record, "scales", label));
  SLUICE_ASSIGN(result.biases, digest_at(record, "biases", label));
  SLUICE_ASSIGN(result.error.squared_error, json_number(record, "squared_error", label));
  SLUICE_ASSIGN(result.error.squared_weight, json_number(record, "squared_weight", label));
  SLUICE_ASSIGN(result.error.error_max, json_number(record, "error_max", label));
  const Json* proved = json_find(record, "proved");
  result.proved = proved != nullptr && *proved == true;
  return result;
}

// Digest over the digests of a tensor's blocks, as they lie in the output.
Result<Digest> digest_written(const io::ByteSource& file, uint64_t start, uint64_t bytes_per_row,
                              const stream::BlockGrid& grid, std::vector<std::byte>& buffer) {
  Hasher hasher;
  for (uint32_t index = 0; index < grid.block_count(); ++index) {
    const stream::Block block = grid.block(0, index);
    buffer.resize(block.rows * bytes_per_row);
    SLUICE_TRY(file.read_at(start + block.first_row * bytes_per_row, buffer));
    hasher.update(digest_of(buffer));
  }
  return hasher.finish();
}

// One conversion from its journal to its final name.
class Conversion {
 public:
  Conversion(io::Storage& storage, const io::Checkpoint& checkpoint, const ModelMap& map,
             const Plan& plan, const std::string& out, OutputClaim* claim,
             const ConvertOptions& options)
      : storage_(storage),
        checkpoint_(checkpoint),
        map_(map),
        plan_(plan),
        out_(output_name(out)),
        partial_(partial_path(out)),
        claim_(claim),
        options_(options),
        results_(map.modules.size()) {}

  Result<ConvertSummary> run();
  Result<ConvertSummary> merge(uint32_t parts);

 private:
  Status run_part();
  Status plan_layout();
  Status check_feedback() const;
  Status open_journal();
  Status take_record(const Json& record, const stream::Part& part, const std::string& path);
  Status take_parts(uint32_t parts);
  Status check_complete(uint32_t parts);
  Result<bool> finish_earlier_publishing();
  Status check_folder();
  Status check_space();
  Status open_shards();
  Status check_resumed();
  Result<bool> matches_record(uint32_t module, std::vector<std::byte>& buffer);
  Status convert_remaining();
  void begin_progress(std::string_view stage, std::span<const uint32_t> modules);
  Status write_small_files();
  Status publish();
  Status finish_publishing();
  std::string inside(std::string_view name) const { return fmt::format("{}/{}", partial_, name); }

  io::Storage& storage_;
  const io::Checkpoint& checkpoint_;
  const ModelMap& map_;
  const Plan& plan_;
  const std::string out_, partial_;
  OutputClaim* const claim_;  // of one process alone; parts and merging lock their journals
  const ConvertOptions& options_;

  std::vector<const PlannedTensor*> planned_;
  OutputLayout layout_;
  std::vector<std::optional<ModuleResult>> results_;  // of modules that are durable
  std::vector<std::unique_ptr<io::LockFile>> locks_;
  std::unique_ptr<io::Journal> journal_;
  std::vector<std::unique_ptr<io::WritableFile>> files_;
  bool journal_begun_ = false, journal_complete_ = false;
  ConvertSummary summary_;
};

Status Conversion::plan_layout() {
  SLUICE_ASSIGN(planned_, match_plan(map_, plan_));
  std::vector<QuantFormat> formats;
  for (const PlannedTensor* tensor : planned_) formats.push_back(tensor->format);
  SLUICE_ASSIGN(layout_, stream::layout_output(stream::layout_modules(checkpoint_, map_),
                                               map_.dtype, formats));
  if (layout_.file_bytes > plan_.data().budget_bytes)
    return fail(ErrorCode::kInvalidArgument,
                "the plan's weight files take {} bytes, more than its budget of {}",
                layout_.file_bytes, plan_.data().budget_bytes);
  summary_.weight_file_bytes = layout_.file_bytes;
  summary_.shards = layout_.shards.size();
  return {};
}

Status Conversion::check_feedback() const {
  if (std::ranges::none_of(planned_, [](const PlannedTensor* tensor) {
        return tensor->encoder == numerics::Encoder::kFeedback;
      }))
    return {};
  if (options_.feedback == nullptr)
    return fail(ErrorCode::kInvalidArgument,
                "the plan's error feedback goes by recorded activations (digest {}); name their "
                "folder",
                plan_.data().activations.hex());
  const io::Activations& activations = options_.feedback->activations();
  if (activations.digest() != plan_.data().activations)
    return fail(ErrorCode::kInvalidArgument,
                "{} holds other activations (digest {}) than the plan goes by ({})",
                activations.folder(), activations.digest().hex(), plan_.data().activations.hex());
  return {};
}

Status Conversion::take_record(const Json& record, const stream::Part& part,
                               const std::string& path) {
  if (!journal_begun_) {
    // Before there is a plan, only the source is noted.
    if (!record.contains("plan"))
      return check_header(record, checkpoint_header(checkpoint_), out_, path);
    SLUICE_TRY(check_header(record, journal_header(checkpoint_, plan_, layout_, part), out_, path));
    journal_begun_ = true;
    return {};
  }
  if (record.contains("complete")) {
    journal_complete_ = true;
    return {};
  }
  SLUICE_ASSIGN(const int64_t module,
                json_int(record, "module", 0, static_cast<int64_t>(results_.size()) - 1, path));
  SLUICE_ASSIGN(const ModuleResult result, result_from_json(record, path));
  if (result.proved || options_.prove_block == nullptr)
    results_[static_cast<size_t>(module)] = result;
  return {};
}

Status Conversion::open_journal() {
  const std::string path = stream::part_path(journal_path(out_), options_.part);
  if (claim_ == nullptr) {
    SLUICE_ASSIGN(locks_.emplace_back(), storage_.lock(path));
  }
  SLUICE_ASSIGN(journal_, io::Journal::open(storage_, path, [&](const Json& record) {
                  return take_record(record, options_.part, path);
                }));
  if (journal_begun_) return {};
  SLUICE_TRY(journal_->append(journal_header(checkpoint_, plan_, layout_, options_.part)));
  SLUICE_TRY(journal_->sync());
  return storage_.sync_directory(io::parent_folder(out_));
}

// What all parts recorded. Their locks are kept: none may be at work any more.
Status Conversion::take_parts(uint32_t parts) {
  for (uint32_t index = 0; index < parts; ++index) {
    const stream::Part part{index, parts};
    const std::string path = stream::part_path(journal_path(out_), part);
    if (!storage_.exists(path)) continue;
    SLUICE_ASSIGN(locks_.emplace_back(), storage_.lock(path));
    SLUICE_ASSIGN(const auto source, storage_.open_source(path));
    journal_begun_ = false;
    SLUICE_TRY(io::read_journal(
        *source, [&](const Json& record) { return take_record(record, part, path); }));
  }
  journal_begun_ = journal_complete_ = false;
  return {};
}

// Names the parts whose modules are not all there as their journals say.
Status Conversion::check_complete(uint32_t parts) {
  std::vector<stream::Part> incomplete;
  std::vector<uint32_t> all(map_.modules.size());
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
  for (uint32_t index = 0; index < parts; ++index) {
    const stream::Part part{index, parts};
    const auto modules = stream::modules_of_part(checkpoint_, map_, all, part);
    if (!std::ranges::all_of(modules, [&](uint32_t i) { return results_[i].has_value(); }))
      incomplete.push_back(part);
  }
  return stream::all_complete(partial_, incomplete);
}

Status Conversion::check_folder() {
  return check_names(storage_, checkpoint_, partial_, [this](const std::string& name) {
    return std::ranges::find(layout_.shards, name, &stream::OutputShard::name) !=
           layout_.shards.end();
  });
}

Status Conversion::check_space() {
  uint64_t needed = 4ull << 20;  // configuration, index and record, generously
  for (const stream::OutputShard& shard : layout_.shards)
    if (!storage_.exists(inside(shard.name))) needed += shard.file_bytes;
  for (const io::Sidecar& sidecar : checkpoint_.sidecars) needed += sidecar.source->size();
  SLUICE_ASSIGN(const uint64_t free, storage_.free_bytes(partial_));
  if (free >= needed) return {};
  return fail(ErrorCode::kExhausted, "{}: {} are needed but only {} are free", partial_,
              bytes_text(needed), bytes_text(free));
}

Status Conversion::open_shards() {
  for (const stream::OutputShard& shard : layout_.shards) {
    SLUICE_ASSIGN(auto file, storage_.open(inside(shard.name), io::OpenMode::kCreateOrOpen));
    SLUICE_TRY(file->allocate(shard.file_bytes));
    SLUICE_TRY(file->write_at(0, std::as_bytes(std::span(shard.header))));
    files_.push_back(std::move(file));
  }
  return storage_.sync_directory(partial_);
}

Result<bool> Conversion::matches_record(uint32_t index, std::vector<std::byte>& buffer) {
  const OutputModule& module = map_.modules[index];
  const stream::ModulePlace& place = layout_.places[index];
  SLUICE_ASSIGN(const auto file, storage_.open_source(inside(layout_.shards[place.shard].name)));
  SLUICE_ASSIGN(const stream::BlockGrid grid, stream::make_grid(module));
  const QuantMode mode = planned_[index]->format.mode;
  const bool quantized = mode != QuantMode::kFloat;
  const auto bytes =
      row_bytes(module, planned_[index]->format,
                quantized ? map_.dtype : stream::plain_dtype(checkpoint_, map_, module));
  const ModuleResult& recorded = *results_[index];
  SLUICE_ASSIGN(const Digest weight,
                digest_written(*file, place.weight, bytes.weight, grid, buffer));
  if (weight != recorded.weight) return false;
  if (!quantized) return true;
  SLUICE_ASSIGN(const Digest scales,
                digest_written(*file, place.scales, bytes.scales, grid, buffer));
  if (scales != recorded.scales) return false;
  if (mode != QuantMode::kAffine) return true;
  SLUICE_ASSIGN(const Digest biases,
                digest_written(*file, place.biases, bytes.biases, grid, buffer));
  return biases == recorded.biases;
}

void Conversion::begin_progress(std::string_view stage, std::span<const uint32_t> modules) {
  if (options_.progress != nullptr)
    options_.progress->begin(stage, stream::source_bytes(checkpoint_, map_, modules));
}

// What an earlier run recorded is read back; anything that is not there as recorded is redone.
Status Conversion::check_resumed() {
  std::vector<std::byte> buffer;
  std::vector<uint32_t> recorded;
  for (uint32_t i = 0; i < results_.size(); ++i)
    if (results_[i]) recorded.push_back(i);
  begin_progress("check", recorded);
  for (const uint32_t i : recorded) {
    if (options_.cancel != nullptr && options_.cancel->cancelled())
      return fail(ErrorCode::kCancelled, "interrupted");
    SLUICE_ASSIGN(const bool intact, matches_record(i, buffer));
    const uint32_t checked[] = {i};
    if (options_.progress != nullptr)
      options_.progress->advance(stream::source_bytes(checkpoint_, map_, checked));
    if (intact) {
      ++summary_.modules_resumed;
    } else {
      options_.log->warn(fmt::format("{}: tensor {} is not as the journal recorded it; redoing it",
                                     partial_, map_.modules[i].tensor_name()));
      results_[i].reset();
    }
  }
  if (options_.progress != nullptr) options_.progress->end();
  if (summary_.modules_resumed > 0)
    options_.log->info(fmt::format("{}: {} of {} modules were converted before", partial_,
                                   summary_.modules_resumed, results_.size()));
  return {};
}

Status Conversion::convert_remaining() {
  std::vector<uint32_t> remaining(results_.size());
  for (uint32_t i = 0; i < remaining.size(); ++i) remaining[i] = i;
  remaining = stream::modules_of_part(checkpoint_, map_, remaining, options_.part);
  std::erase_if(remaining, [this](uint32_t module) { return results_[module].has_value(); });
  begin_progress("quantize", remaining);
  ConvertVisitor visitor(checkpoint_, map_, plan_, {planned_, layout_, files_, *journal_, results_},
                         options_);
  stream::StreamOptions stream_options;
  stream_options.workers = options_.workers;
  stream_options.decode =
      kernels::source_decoders<stream::SourceDecoders>(kernels::kernel_table(options_.simd));
  stream_options.cancel = options_.cancel;
  stream_options.progress = options_.progress;
  const Status streamed =
      stream::stream_modules(checkpoint_, map_, remaining, visitor, stream_options);
  // An interruption keeps what is finished; after any other error nothing more is claimed.
  if (!streamed && streamed.error().code != ErrorCode::kCancelled) return streamed;
  SLUICE_TRY(visitor.finish());
  return streamed;
}

Status Conversion::write_small_files() {
  for (const io::Sidecar& sidecar : checkpoint_.sidecars) {
    SLUICE_ASSIGN(const std::string text, io::read_text(*sidecar.source, sidecar.source->size()));
    SLUICE_TRY(io::write_file_atomically(storage_, inside(sidecar.name), text));
  }
  std::vector<ModuleResult> results;
  for (const auto& result : results_) results.push_back(*result);
  NamedTexts files = {{"config.json", dump_json(output_config(checkpoint_, map_, plan_), 4)},
                      {"model.safetensors.index.json", dump_json(output_index(layout_), 4)},
                      {"README.md", model_card(checkpoint_, plan_, layout_)}};
  const Json record = output_record(checkpoint_, map_, plan_, layout_, results, files);
  files.emplace_back("sluice.json", dump_json(record, 1) + "\n");
  for (const auto& [name, text] : files)
    SLUICE_TRY(io::write_file_atomically(storage_, inside(name), text));
  return {};
}

// The journal says that the folder is complete before it takes its name, so that a run killed in
// between only renames.
Status Conversion::publish() {
  for (const auto& file : files_) SLUICE_TRY(file->sync());
  files_.clear();
  SLUICE_TRY(storage_.sync_directory(partial_));
  SLUICE_TRY(journal_->append({{"complete", true}}));
  SLUICE_TRY(journal_->sync());
  SLUICE_TRY(storage_.rename(partial_, out_));
  return finish_publishing();
}

// The journal stays until the new name is sure to. What the parts agreed on goes last: with it
// alone, merge() still knows that it has finished.
Status Conversion::finish_publishing() {
  SLUICE_TRY(storage_.sync_directory(io::parent_folder(out_)));
  const bool in_parts = storage_.exists(parts_path(out_));
  if (in_parts) {
    SLUICE_ASSIGN(const PartsJob job, read_parts_job(storage_, out_));
    for (uint32_t index = 0; index < job.parts; ++index) {
      const std::string path = stream::part_path(journal_path(out_), {index, job.parts});
      if (storage_.exists(path)) SLUICE_TRY(storage_.remove(path));
    }
  }
  SLUICE_TRY(storage_.remove(journal_path(out_)));
  if (claim_ != nullptr) claim_->finish();
  return in_parts ? storage_.remove(parts_path(out_)) : Status{};
}

// True when an earlier run was killed after the rename, which may not have been durable: all that
// was left to do is done. Errors: kInvalidArgument when out exists otherwise.
Result<bool> Conversion::finish_earlier_publishing() {
  if (!storage_.exists(out_)) return false;
  if (storage_.exists(journal_path(out_)) && !storage_.exists(partial_)) {
    SLUICE_TRY(open_journal());
    if (journal_complete_) {
      SLUICE_TRY(finish_publishing());
      return true;
    }
  }
  return fail(ErrorCode::kInvalidArgument, "{} exists already; remove it or choose another output",
              out_);
}

// Leaves a folder that is complete in this part's modules, and says so in the part's journal.
Status Conversion::run_part() {
  if (storage_.exists(out_))
    return fail(ErrorCode::kInvalidArgument,
                "{} exists already; remove it or choose another output", out_);
  if (storage_.exists(journal_path(out_)))
    return fail(ErrorCode::kInvalidArgument,
                "{} was begun by one process, or is being merged; finish it that way", partial_);
  SLUICE_TRY(storage_.create_directory(partial_));
  SLUICE_TRY(check_folder());
  SLUICE_TRY(check_space());
  const std::string model =
      checkpoint_.remote ? checkpoint_.path
                         : std::filesystem::absolute(checkpoint_.path).lexically_normal().string();
  SLUICE_TRY(
      agree_on_parts_job(storage_, out_, {model, options_.part.count, plan_}, options_.part.index));
  SLUICE_TRY(open_journal());
  SLUICE_TRY(open_shards());
  SLUICE_TRY(check_resumed());
  return convert_remaining();
}

Result<ConvertSummary> Conversion::run() {
  SLUICE_TRY(plan_layout());
  SLUICE_TRY(check_feedback());
  if (!options_.part.whole()) {
    SLUICE_TRY(run_part());
    return summary_;
  }
  if (claim_->published()) {
    SLUICE_ASSIGN(const bool finished, finish_earlier_publishing());
    SLUICE_CHECK(finished);
    return summary_;
  }
  if (storage_.exists(parts_path(out_)))
    return fail(ErrorCode::kInvalidArgument,
                "{} was begun in parts; finish them and run sluice merge, or remove it and {}",
                partial_, parts_path(out_));
  SLUICE_TRY(check_folder());
  SLUICE_TRY(check_space());
  SLUICE_TRY(open_journal());
  SLUICE_TRY(open_shards());
  SLUICE_TRY(check_resumed());
  SLUICE_TRY(convert_remaining());
  SLUICE_TRY(write_small_files());
  if (options_.before_publishing) SLUICE_TRY(options_.before_publishing(partial_));
  SLUICE_TRY(publish());
  return summary_;
}

Result<ConvertSummary> Conversion::merge(uint32_t parts) {
  SLUICE_CHECK(options_.part.whole());
  SLUICE_TRY(plan_layout());
  if (storage_.exists(out_) && !storage_.exists(partial_) && !storage_.exists(journal_path(out_))) {
    SLUICE_TRY(storage_.remove(parts_path(out_)));
    return summary_;
  }
  SLUICE_ASSIGN(const bool finished, finish_earlier_publishing());
  if (finished) return summary_;
  SLUICE_TRY(take_parts(parts));
  SLUICE_TRY(check_complete(parts));
  SLUICE_TRY(check_folder());
  SLUICE_TRY(open_journal());
  SLUICE_TRY(open_shards());
  SLUICE_TRY(check_resumed());
  SLUICE_TRY(check_complete(parts));
  SLUICE_TRY(write_small_files());
  SLUICE_TRY(publish());
  return summary_;
}

}  // namespace

namespace {

Status check_source(const io::Checkpoint& checkpoint, const Plan& plan) {
  if (checkpoint.identity_digest() == plan.data().source) return {};
  return fail(ErrorCode::kInvalidArgument,
              "the plan was made for another source, or {} has changed since (identity {}, the "
              "plan says {})",
              checkpoint.path, checkpoint.identity_digest().hex(), plan.data().source.hex());
}

}  // namespace

Status begin_unfinished(io::Storage& storage, const io::Checkpoint& checkpoint,
                        const std::string& out) {
  SLUICE_TRY(check_names(storage, checkpoint, partial_path(out), may_be_shard));
  const std::string path = journal_path(out);
  const Json header = checkpoint_header(checkpoint);
  bool first = true;
  SLUICE_ASSIGN(const auto journal,
                io::Journal::open(storage, path, [&](const Json& record) -> Status {
                  if (!std::exchange(first, false)) return {};
                  return check_header(record, header, out, path);
                }));
  if (!first) return {};
  SLUICE_TRY(journal->append(header));
  return journal->sync();
}

Result<ConvertSummary> convert(io::Storage& storage, const io::Checkpoint& checkpoint,
                               const ModelMap& map, const Plan& plan, const std::string& out,
                               const ConvertOptions& options) {
  SLUICE_TRY(check_source(checkpoint, plan));
  std::unique_ptr<OutputClaim> own;
  OutputClaim* claim = options.claim;
  if (claim == nullptr && options.part.whole()) {
    SLUICE_ASSIGN(own, OutputClaim::take(storage, out));
    claim = own.get();
  }
  return Conversion(storage, checkpoint, map, plan, out, claim, options).run();
}

Result<ConvertSummary> merge(io::Storage& storage, const io::Checkpoint& checkpoint,
                             const ModelMap& map, const Plan& plan, uint32_t parts,
                             const std::string& out, const ConvertOptions& options) {
  SLUICE_TRY(check_source(checkpoint, plan));
  return Conversion(storage, checkpoint, map, plan, out, nullptr, options).merge(parts);
}

}  // namespace sluice::convert
