#include "evaluate/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/json.h"
#include "base/sealed_json.h"

namespace sluice::evaluate {
namespace {

constexpr uint64_t kManifestBytesMax = 1 << 20;
constexpr float kSteps = 65535;

std::string shard_path(const std::string& folder, size_t index) {
  return fmt::format("{}/window-{:06}.ref", folder, index);
}

std::string manifest_path(const std::string& folder) { return folder + "/reference.json"; }

template <class T>
void append_value(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

Json manifest(const ReferenceIdentity& identity) {
  return sealed({{"version", 1},
                 {"model", identity.model.hex()},
                 {"windows", identity.windows.hex()},
                 {"window_count", identity.window_count},
                 {"vocabulary", identity.vocabulary}});
}

Result<ReferenceIdentity> read_manifest(const std::string& folder, io::Storage& storage) {
  const std::string path = manifest_path(folder);
  if (!storage.exists(path))
    return fail(ErrorCode::kNotFound, "{}: no reference.json; make one with --save-reference",
                folder);
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kManifestBytesMax));
  SLUICE_ASSIGN(const Json json, parse_json(text, path));
  SLUICE_TRY(json_int(json, "version", 1, 1, path));
  SLUICE_TRY(check_seal(json, path));
  ReferenceIdentity identity;
  SLUICE_ASSIGN(const std::string model, json_string(json, "model", path));
  SLUICE_ASSIGN(identity.model, Digest::from_hex(model));
  SLUICE_ASSIGN(const std::string windows, json_string(json, "windows", path));
  SLUICE_ASSIGN(identity.windows, Digest::from_hex(windows));
  SLUICE_ASSIGN(const int64_t count, json_int(json, "window_count", 1, 1 << 30, path));
  SLUICE_ASSIGN(const int64_t vocabulary, json_int(json, "vocabulary", 1, 1 << 30, path));
  identity.window_count = static_cast<size_t>(count);
  identity.vocabulary = static_cast<size_t>(vocabulary);
  return identity;
}

// A shard: its rows, then the digest of them.
Result<std::vector<std::byte>> read_shard(const std::string& path, uint64_t row_bytes,
                                          io::Storage& storage) {
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  if (source->size() != row_bytes + sizeof(Digest))
    return fail(ErrorCode::kCorrupt, "{}: {} bytes; {} rows and digest take {}", path,
                source->size(), row_bytes, row_bytes + sizeof(Digest));
  std::vector<std::byte> bytes(row_bytes + sizeof(Digest));
  SLUICE_TRY(source->read_at(0, bytes));
  Digest stored;
  std::memcpy(&stored, bytes.data() + row_bytes, sizeof stored);
  bytes.resize(row_bytes);
  if (digest_of(bytes) != stored)
    return fail(ErrorCode::kCorrupt, "{}: its content does not match its digest", path);
  return bytes;
}

size_t scored_rows(const Window& window) { return window.ids.size() - window.first_scored; }

class StoredRows : public ReferenceRows {
 public:
  StoredRows(std::string folder, std::span<const Window> windows, size_t vocabulary,
             io::Storage& storage)
      : folder_(std::move(folder)), windows_(windows), vocabulary_(vocabulary), storage_(storage) {}

  size_t vocabulary() const override { return vocabulary_; }

  Result<std::vector<float>> rows(size_t index, const CancelToken*) override {
    const size_t count = scored_rows(windows_[index]), row_bytes = encoded_row_bytes(vocabulary_);
    SLUICE_ASSIGN(const auto bytes,
                  read_shard(shard_path(folder_, index), count * row_bytes, storage_));
    std::vector<float> rows(count * vocabulary_);
    for (size_t row = 0; row < count; ++row)
      decode_log_probs(std::span(bytes).subspan(row * row_bytes, row_bytes),
                       std::span(rows).subspan(row * vocabulary_, vocabulary_));
    return rows;
  }

 private:
  const std::string folder_;
  const std::span<const Window> windows_;
  const size_t vocabulary_;
  io::Storage& storage_;
};

class LiveRows : public ReferenceRows {
 public:
  LiveRows(runtime::Engine& engine, std::span<const Window> windows)
      : engine_(engine), windows_(windows), session_(engine.new_session()) {}

  size_t vocabulary() const override { return engine_.info().vocabulary; }

  Result<std::vector<float>> rows(size_t index, const CancelToken* cancel) override {
    std::vector<float> rows;
    rows.reserve(scored_rows(windows_[index]) * vocabulary());
    SLUICE_TRY(run_window(
        engine_, session_, windows_[index],
        [&](size_t, uint32_t, std::span<const float> log_probs) -> Status {
          rows.insert(rows.end(), log_probs.begin(), log_probs.end());
          return {};
        },
        cancel));
    return rows;
  }

 private:
  runtime::Engine& engine_;
  const std::span<const Window> windows_;
  runtime::Session session_;
};

Status prepare_folder(const ReferenceIdentity& identity, const std::string& folder,
                      io::Storage& storage) {
  if (!storage.exists(folder)) SLUICE_TRY(storage.create_directory(folder));
  if (!storage.exists(manifest_path(folder)))
    return io::write_file_atomically(storage, manifest_path(folder),
                                     dump_json(manifest(identity), 1) + "\n");
  SLUICE_ASSIGN(const ReferenceIdentity found, read_manifest(folder, storage));
  if (found.model == identity.model && found.windows == identity.windows) return {};
  return fail(ErrorCode::kInvalidArgument,
              "{} holds the reference of another {}; choose another folder", folder,
              found.model == identity.model ? "text or protocol" : "model");
}

Result<std::string> make_shard(runtime::Engine& engine, runtime::Session& session,
                               const Window& window, const CancelToken* cancel) {
  std::vector<std::byte> bytes;
  bytes.reserve(scored_rows(window) * encoded_row_bytes(engine.info().vocabulary) + sizeof(Digest));
  SLUICE_TRY(run_window(
      engine, session, window,
      [&](size_t, uint32_t, std::span<const float> log_probs) -> Status {
        encode_log_probs(log_probs, bytes);
        return {};
      },
      cancel));
  append_value(bytes, digest_of(bytes));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

ReferenceIdentity identify(const runtime::Engine& engine, std::span<const Window> windows) {
  return {engine.info().identity, windows_digest(windows), windows.size(),
          engine.info().vocabulary};
}

size_t encoded_row_bytes(size_t vocabulary) { return sizeof(float) + 2 * vocabulary; }

void encode_log_probs(std::span<const float> log_probs, std::vector<std::byte>& out) {
  const float low = std::clamp(*std::ranges::min_element(log_probs), kLogProbMin, -1e-6f);
  append_value(out, low);
  for (const float value : log_probs) {
    const float step = std::clamp((value - low) / -low * kSteps, 0.0f, kSteps);
    append_value(out, static_cast<uint16_t>(std::lrint(step)));
  }
}

void decode_log_probs(std::span<const std::byte> in, std::span<float> out) {
  SLUICE_CHECK(in.size() == encoded_row_bytes(out.size()));
  float low;
  std::memcpy(&low, in.data(), sizeof low);
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t step;
    std::memcpy(&step, in.data() + sizeof low + 2 * i, sizeof step);
    out[i] = low - low * static_cast<float>(step) / kSteps;
  }
}

Status write_reference(runtime::Engine& engine, std::span<const Window> windows,
                       const std::string& folder, io::Storage& storage, Progress& progress,
                       const CancelToken* cancel) {
  SLUICE_TRY(prepare_folder(identify(engine, windows), folder, storage));
  runtime::Session session = engine.new_session();
  uint64_t tokens = 0;
  for (const Window& window : windows) tokens += window.ids.size();
  progress.begin("reference", tokens);
  const size_t row_bytes = encoded_row_bytes(engine.info().vocabulary);
  for (size_t index = 0; index < windows.size(); ++index) {
    const std::string path = shard_path(folder, index);
    const bool whole =
        storage.exists(path) && read_shard(path, scored_rows(windows[index]) * row_bytes, storage);
    if (!whole) {
      SLUICE_ASSIGN(const std::string shard, make_shard(engine, session, windows[index], cancel));
      SLUICE_TRY(io::write_file_atomically(storage, path, shard));
    }
    progress.advance(windows[index].ids.size());
  }
  progress.end();
  return {};
}

Result<std::unique_ptr<ReferenceRows>> open_reference(const std::string& folder,
                                                      std::span<const Window> windows,
                                                      io::Storage& storage) {
  SLUICE_ASSIGN(const ReferenceIdentity identity, read_manifest(folder, storage));
  if (identity.windows != windows_digest(windows))
    return fail(ErrorCode::kInvalidArgument,
                "{}: made from another text, tokenizer, protocol or context", folder);
  return std::make_unique<StoredRows>(folder, windows, identity.vocabulary, storage);
}

std::unique_ptr<ReferenceRows> live_reference(runtime::Engine& engine,
                                              std::span<const Window> windows) {
  return std::make_unique<LiveRows>(engine, windows);
}

}  // namespace sluice::evaluate
