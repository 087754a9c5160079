#include "io/activations.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/json.h"
#include "base/sealed_json.h"
#include "numerics/feedback.h"

namespace sluice::io {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kManifestBytesMax = 64 << 20;
constexpr int64_t kColumnsMax = 1 << 20;
constexpr uint64_t kDigestBytes = sizeof(Digest);
constexpr size_t kPieceBytes = 1 << 20;

std::string manifest_path(const std::string& folder) { return folder + "/activations.json"; }

std::string input_path(const std::string& folder, size_t input) {
  return fmt::format("{}/input-{:06}.moments", folder, input);
}

Json manifest_to_json(const ActivationManifest& manifest) {
  Json inputs = Json::array();
  for (const ActivationInput& input : manifest.inputs)
    inputs.push_back(
        {{"weights", input.weights}, {"columns", input.columns}, {"experts", input.experts}});
  return sealed({{"version", 1},
                 {"model", manifest.model.hex()},
                 {"text", manifest.text.hex()},
                 {"tokens", manifest.tokens},
                 {"inputs", std::move(inputs)}});
}

Result<ActivationInput> input_from_json(const Json& json, const std::string& path) {
  ActivationInput input;
  SLUICE_ASSIGN(const Json* weights, json_array(json, "weights", path));
  for (const Json& weight : *weights) {
    if (!weight.is_string())
      return fail(ErrorCode::kCorrupt, "{}: \"weights\" should be names, found {}", path,
                  weight.type_name());
    input.weights.push_back(weight.get<std::string>());
  }
  SLUICE_ASSIGN(const int64_t columns, json_int(json, "columns", 32, kColumnsMax, path));
  SLUICE_ASSIGN(const int64_t experts, json_int(json, "experts", 1, kColumnsMax, path));
  if (columns % 32 != 0)
    return fail(ErrorCode::kCorrupt, "{}: {} columns, not a multiple of 32", path, columns);
  input.columns = static_cast<uint64_t>(columns);
  input.experts = static_cast<uint64_t>(experts);
  return input;
}

Result<ActivationManifest> read_manifest(Storage& storage, const std::string& folder) {
  const std::string path = manifest_path(folder);
  if (!storage.exists(path))
    return fail(ErrorCode::kNotFound, "{}: no activations.json; make one with `sluice calibrate`",
                folder);
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(const std::string text, read_text(*source, kManifestBytesMax));
  SLUICE_ASSIGN(const Json json, parse_json(text, path));
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, INT32_MAX, path));
  if (version != 1)
    return fail(ErrorCode::kUnsupported,
                "{}: version {} of recorded activations, known is 1; record them again", path,
                version);
  SLUICE_TRY(check_seal(json, path));
  ActivationManifest manifest;
  SLUICE_ASSIGN(const std::string model, json_string(json, "model", path));
  SLUICE_ASSIGN(manifest.model, Digest::from_hex(model));
  SLUICE_ASSIGN(const std::string text_digest, json_string(json, "text", path));
  SLUICE_ASSIGN(manifest.text, Digest::from_hex(text_digest));
  SLUICE_ASSIGN(const int64_t tokens, json_int(json, "tokens", 0, INT64_MAX, path));
  manifest.tokens = static_cast<uint64_t>(tokens);
  SLUICE_ASSIGN(const Json* inputs, json_array(json, "inputs", path));
  for (const Json& input : *inputs) {
    SLUICE_ASSIGN(ActivationInput parsed, input_from_json(input, path));
    manifest.inputs.push_back(std::move(parsed));
  }
  return manifest;
}

// An expert's part of a file: rows, the triangle, and the digest of both.
uint64_t section_bytes(uint64_t columns) {
  return sizeof(uint64_t) + numerics::triangle_elements(columns) * sizeof(float) + kDigestBytes;
}

Digest section_digest(const Moments& moments) {
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(&moments.rows, 1)));
  hasher.update(std::as_bytes(std::span(moments.values)));
  return hasher.finish();
}

Result<Moments> read_section(const ByteSource& source, const ActivationInput& input,
                             uint64_t expert) {
  Moments moments;
  moments.values.resize(static_cast<size_t>(numerics::triangle_elements(input.columns)));
  const std::span<std::byte> values = std::as_writable_bytes(std::span(moments.values));
  const uint64_t at = expert * section_bytes(input.columns);
  SLUICE_TRY(source.read_at(at, std::as_writable_bytes(std::span(&moments.rows, 1))));
  SLUICE_TRY(source.read_at(at + sizeof moments.rows, values));
  Digest stored;
  SLUICE_TRY(source.read_at(at + sizeof moments.rows + values.size(),
                            std::as_writable_bytes(std::span(&stored, 1))));
  if (section_digest(moments) != stored)
    return fail(ErrorCode::kCorrupt, "{}: its content does not match its digest (expert {})",
                source.label(), expert);
  // What our own writer would not write: the factor needs numbers, and squares on the diagonal.
  for (size_t i = 0, at_row = 0; i < input.columns; at_row += input.columns - i, ++i)
    if (!(moments.values[at_row] >= 0))
      return fail(ErrorCode::kCorrupt, "{}: the moment of column {} of expert {} is negative",
                  source.label(), i, expert);
  if (!std::ranges::all_of(moments.values, [](float value) { return std::isfinite(value); }))
    return fail(ErrorCode::kCorrupt, "{}: moments of expert {} are no finite numbers",
                source.label(), expert);
  return moments;
}

}  // namespace

uint64_t moment_file_bytes(const ActivationInput& input) {
  return input.experts * section_bytes(input.columns);
}

uint64_t record_bytes(const ActivationManifest& manifest) {
  uint64_t bytes = 0;
  for (const ActivationInput& input : manifest.inputs) bytes += moment_file_bytes(input);
  return bytes;
}

Status begin_activations(Storage& storage, const std::string& folder,
                         const ActivationManifest& manifest) {
  if (!storage.exists(folder)) SLUICE_TRY(storage.create_directory(folder));
  if (!storage.exists(manifest_path(folder)))
    return write_file_atomically(storage, manifest_path(folder),
                                 dump_json(manifest_to_json(manifest), 1) + "\n");
  SLUICE_ASSIGN(const ActivationManifest found, read_manifest(storage, folder));
  if (found == manifest) return {};
  return fail(ErrorCode::kInvalidArgument,
              "{} holds activations of another {}; choose another folder", folder,
              found.model == manifest.model ? "text" : "model");
}

bool has_moments(Storage& storage, const std::string& folder, const ActivationManifest& manifest,
                 size_t input) {
  const std::string path = input_path(folder, input);
  if (!storage.exists(path)) return false;
  const auto source = storage.open_source(path);
  const ActivationInput& wanted = manifest.inputs[input];
  if (!source || (*source)->size() != moment_file_bytes(wanted)) return false;
  for (uint64_t expert = 0; expert < wanted.experts; ++expert)
    if (!read_section(**source, wanted, expert)) return false;
  return true;
}

Status write_moments(Storage& storage, const std::string& folder,
                     const ActivationManifest& manifest, size_t input,
                     std::span<const Moments> moments) {
  SLUICE_CHECK(moments.size() == manifest.inputs[input].experts);
  const std::string path = input_path(folder, input);
  const std::string partial = path + std::string(kUnfinishedSuffix);
  Status status = [&]() -> Status {
    SLUICE_ASSIGN(const auto file, storage.open(partial, OpenMode::kCreateOrOpen));
    SLUICE_TRY(file->truncate(0));
    for (const Moments& part : moments) {
      SLUICE_CHECK(part.values.size() ==
                   numerics::triangle_elements(manifest.inputs[input].columns));
      const Digest digest = section_digest(part);
      SLUICE_TRY(file->append(std::as_bytes(std::span(&part.rows, 1))));
      const std::span<const std::byte> values = std::as_bytes(std::span(part.values));
      for (size_t at = 0; at < values.size(); at += kPieceBytes)
        SLUICE_TRY(file->append(values.subspan(at, std::min(kPieceBytes, values.size() - at))));
      SLUICE_TRY(file->append(std::as_bytes(std::span(&digest, 1))));
    }
    return file->sync();
  }();
  if (status) status = storage.rename(partial, path);
  if (status) return storage.sync_directory(folder);
  (void)storage.remove(partial);
  return status;
}

Status remove_activations(Storage& storage, const std::string& folder,
                          const ActivationManifest& manifest) {
  for (size_t input = 0; input < manifest.inputs.size(); ++input)
    SLUICE_TRY(storage.remove(input_path(folder, input)));
  SLUICE_TRY(storage.remove(manifest_path(folder)));
  SLUICE_ASSIGN(const auto others, storage.list_directory(folder));
  return others.empty() ? storage.remove(folder) : Status();
}

Result<std::shared_ptr<const Activations>> Activations::open(Storage& storage,
                                                             const std::string& folder) {
  std::shared_ptr<Activations> opened(new Activations());
  opened->folder_ = folder;
  SLUICE_ASSIGN(opened->manifest_, read_manifest(storage, folder));
  Hasher hasher;
  hasher.update(content_digest(manifest_to_json(opened->manifest_)));
  for (size_t i = 0; i < opened->manifest_.inputs.size(); ++i) {
    const ActivationInput& input = opened->manifest_.inputs[i];
    const std::string path = input_path(folder, i);
    if (!storage.exists(path))
      return fail(ErrorCode::kInvalidArgument,
                  "{}: recording has not been finished; run the command that began it again",
                  folder);
    SLUICE_ASSIGN(auto source, storage.open_source(path));
    if (source->size() != moment_file_bytes(input))
      return fail(ErrorCode::kCorrupt, "{}: {} bytes; {} columns and {} experts take {}", path,
                  source->size(), input.columns, input.experts, moment_file_bytes(input));
    for (uint64_t expert = 0; expert < input.experts; ++expert) {
      Digest digest;
      SLUICE_TRY(source->read_at((expert + 1) * section_bytes(input.columns) - kDigestBytes,
                                 std::as_writable_bytes(std::span(&digest, 1))));
      hasher.update(digest);
    }
    opened->files_.push_back(std::move(source));
    for (const std::string& weight : input.weights)
      if (!opened->by_weight_.emplace(weight, i).second)
        return fail(ErrorCode::kCorrupt, "{}: tensor {} has two inputs", manifest_path(folder),
                    weight);
  }
  opened->digest_ = hasher.finish();
  return opened;
}

std::optional<size_t> Activations::find(std::string_view tensor_name) const {
  const auto found = by_weight_.find(std::string(tensor_name));
  if (found == by_weight_.end()) return std::nullopt;
  return found->second;
}

Result<Moments> Activations::load(size_t input, uint64_t expert) const {
  SLUICE_CHECK(expert < manifest_.inputs[input].experts);
  return read_section(*files_[input], manifest_.inputs[input], expert);
}

}  // namespace sluice::io
