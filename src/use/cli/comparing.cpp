#include "cli/comparing.h"

#include <algorithm>
#include <filesystem>

#include "base/sealed_json.h"
#include "cli/model.h"
#include "sluice_version.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kRecordBytesMax = 64ull << 20;
constexpr size_t kBlockBytes = 8 << 20;

// Of every byte of the weight files and the configuration: headers alone do not tell two outputs of
// one layout apart.
Result<Digest> weights_digest(const io::Checkpoint& checkpoint, const CancelToken* cancel) {
  Hasher hasher;
  std::vector<std::byte> block(kBlockBytes);
  hasher.update(dump_json(checkpoint.config));
  for (const auto& file : checkpoint.files) {
    for (uint64_t offset = 0; offset < file->size(); offset += kBlockBytes) {
      if (cancel->cancelled()) return fail(ErrorCode::kCancelled, "{}: cancelled", file->label());
      const auto part =
          std::span(block).first(std::min<uint64_t>(kBlockBytes, file->size() - offset));
      SLUICE_TRY(file->read_at(offset, part));
      hasher.update(part);
    }
  }
  return hasher.finish();
}

Result<std::shared_ptr<const io::Checkpoint>> open_local(Context& context,
                                                         const std::string& path) {
  SLUICE_ASSIGN(const std::string found, local_path(context, path));
  return io::open_checkpoint(found);
}

// The last part of a path, whatever slashes are behind it.
std::string name_of(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  return std::filesystem::path(path.substr(0, end + 1)).filename().string();
}

uint64_t weight_file_bytes(const io::Checkpoint& checkpoint) {
  uint64_t bytes = 0;
  for (const io::SourceFile& file : checkpoint.identity) bytes += file.bytes;
  return bytes;
}

// A record that is damaged is a record less: what it held is measured again.
std::optional<evaluate::Comparison> read_record(Context& context, const std::string& path) {
  if (!context.storage->exists(path)) return std::nullopt;
  const auto parsed = [&]() -> Result<evaluate::Comparison> {
    SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
    SLUICE_ASSIGN(const std::string text, io::read_text(*source, kRecordBytesMax));
    SLUICE_ASSIGN(const Json json, parse_json(text, path));
    SLUICE_TRY(check_seal(json, path));
    return evaluate::parse_comparison(json, path);
  }();
  if (parsed) return *parsed;
  context.console->warn(parsed.error().message + "; it is measured again");
  return std::nullopt;
}

Status make_folders(io::Storage& storage, const std::string& folder) {
  for (const std::string& path : {folder, folder + "/scores"})
    if (!storage.exists(path)) SLUICE_TRY(storage.create_directory(path));
  return {};
}

}  // namespace

double ComparedModel::bits_per_weight() const {
  return parameters == 0 ? 0 : 8 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

Result<std::unique_ptr<Comparing>> Comparing::begin(Context& context,
                                                    const ComparingOptions& options) {
  std::unique_ptr<Comparing> comparing(new Comparing(context, options));
  if (!options.folder.empty()) SLUICE_TRY(make_folders(*context.storage, options.folder));
  if (context.storage->exists(options.reference + "/reference.json")) return comparing;
  SLUICE_ASSIGN(comparing->running_, plan_engine(context, options.reference, options.engine));
  SLUICE_ASSIGN(const chat::ChatModel model, chat::open_chat_model(comparing->running_.engine, ""));
  SLUICE_ASSIGN(comparing->windows_,
                windows_of(context, options.text, options.engine.context_tokens, model));
  return comparing;
}

// The first model's windows are those of a stored reference, which has no tokenizer but knows
// whether they are its own.
Status Comparing::take_windows(std::vector<evaluate::Window> windows, const runtime::Engine& engine,
                               const std::string& path) {
  if (windows_.empty())
    windows_ = std::move(windows);
  else if (evaluate::identify(engine, windows).windows !=
           evaluate::identify(engine, windows_).windows)
    return fail(ErrorCode::kInvalidArgument,
                "{}: its tokenizer cuts the text otherwise than the others'; only outputs of one "
                "model can be compared",
                path);
  if (!stored() || rows_ != nullptr) return {};
  SLUICE_ASSIGN(rows_, evaluate::open_reference(options_.reference, windows_, *context_.storage));
  return {};
}

Status Comparing::load_reference() {
  if (stored() || loaded_) return {};
  SLUICE_TRY(load_weights(context_, running_));
  rows_ = evaluate::live_reference(*running_.engine, windows_);
  loaded_ = true;
  return {};
}

Result<Digest> Comparing::reference_digest() {
  if (digest_) return *digest_;
  if (stored()) {
    SLUICE_ASSIGN(const std::vector<float> first, rows_->rows(0, context_.cancel));
    digest_ = digest_of(std::as_bytes(std::span(first)));
  } else {
    SLUICE_ASSIGN(const auto checkpoint, open_local(context_, options_.reference));
    SLUICE_ASSIGN(digest_, weights_digest(*checkpoint, context_.cancel));
  }
  return *digest_;
}

// Named after all that scores depend on. Threads, memory and instruction set are not among it.
Result<std::string> Comparing::record_path(const io::Checkpoint& checkpoint) {
  SLUICE_ASSIGN(const Digest reference, reference_digest());
  SLUICE_ASSIGN(const Digest weights, weights_digest(checkpoint, context_.cancel));
  const EngineArguments& engine = options_.engine;
  Hasher hasher;
  hasher.update(fmt::format("{}\n{}\n{}\n{}\n{}\n", kVersion, stored(), engine.kv,
                            engine.activations, engine.compat));
  hasher.update(reference);
  hasher.update(weights);
  for (const evaluate::Window& window : windows_)
    hasher.update(fmt::format("{} {}\n{}\n", window.ids.size(), window.first_scored,
                              fmt::join(window.ids, " ")));
  return fmt::format("{}/scores/{}.json", options_.folder, hasher.finish().hex());
}

Result<evaluate::Comparison> Comparing::score_loaded(const RunningModel& running) {
  SLUICE_TRY(load_reference());
  SLUICE_TRY(load_weights(context_, running));
  context_.console->count_in("tokens");
  SLUICE_ASSIGN(evaluate::Comparison scores, evaluate::compare(*running.engine, windows_, *rows_,
                                                               *context_.console, context_.cancel));
  context_.console->end();
  context_.console->count_in("");
  SLUICE_TRY(finish_running(context_, running));
  return scores;
}

Result<ComparedModel> Comparing::score(const std::string& path) {
  context_.console->info(path);
  SLUICE_ASSIGN(const RunningModel running, plan_engine(context_, path, options_.engine));
  {
    SLUICE_ASSIGN(const chat::ChatModel model, chat::open_chat_model(running.engine, ""));
    SLUICE_ASSIGN(auto windows,
                  windows_of(context_, options_.text, options_.engine.context_tokens, model));
    SLUICE_TRY(take_windows(std::move(windows), *running.engine, path));
  }
  SLUICE_ASSIGN(const auto checkpoint, open_local(context_, path));
  const runtime::ModelInfo& info = running.engine->info();
  ComparedModel model{name_of(path),   path, info.storage, weight_file_bytes(*checkpoint),
                      info.parameters, {}};
  std::string record;
  if (!options_.folder.empty()) {
    SLUICE_ASSIGN(record, record_path(*checkpoint));
    if (auto kept = read_record(context_, record)) {
      model.scores = std::move(*kept);
      return model;
    }
  }
  SLUICE_ASSIGN(model.scores, score_loaded(running));
  if (!record.empty())
    SLUICE_TRY(io::write_file_atomically(
        *context_.storage, record,
        dump_json(sealed(evaluate::comparison_json(model.scores)), 1) + "\n"));
  return model;
}

}  // namespace sluice::cli
