#include "io/model_outline.h"

#include <filesystem>
#include <system_error>

#include "io/byte_source.h"
#include "io/python_json.h"
#include "io/safetensors_index.h"

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kConfigBytesMax = 16 << 20;
constexpr std::string_view kConfigName = "config.json";
constexpr std::string_view kIndexName = "model.safetensors.index.json";

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

Status add_config(const std::string& path, ModelOutline& outline) {
  SLUICE_ASSIGN(const auto source, open_file_source(path));
  SLUICE_ASSIGN(const std::string text, read_text(*source, kConfigBytesMax));
  SLUICE_ASSIGN(outline.config, parse_json(without_python_numbers(text), path));
  if (!outline.config.is_object() || json_find(outline.config, "model_type") == nullptr)
    return fail(ErrorCode::kUnsupported,
                "{}: no model's configuration: it has no \"model_type\", which every config.json "
                "of transformers has",
                path);
  return {};
}

Status add_index(const std::string& path, ModelOutline& outline) {
  SLUICE_ASSIGN(const auto source, open_file_source(path));
  SLUICE_ASSIGN(const std::string text, read_text(*source, kIndexBytesMax));
  SLUICE_ASSIGN(SafetensorsIndex index, parse_safetensors_index(text, path));
  outline.shards = index.files.size();
  outline.tensor_bytes = index.total_size;
  for (SafetensorsIndex::Entry& entry : index.entries)
    outline.tensor_names.push_back(std::move(entry.tensor));
  return {};
}

}  // namespace

bool is_outline(const std::string& path) {
  if (is_file(path)) return path.ends_with(".json");
  if (!is_file(fs::path(path) / kConfigName)) return false;
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".gguf")) return false;
  }
  return !error;
}

Result<ModelOutline> open_outline(const std::string& path) {
  ModelOutline outline;
  outline.path = path;
  const bool folder = !is_file(path);
  const fs::path parent = folder ? fs::path(path) : fs::path(path).parent_path();
  const bool is_index = fs::path(path).filename() == kIndexName;
  const fs::path config = folder || is_index ? parent / kConfigName : fs::path(path);
  if (!is_file(config))
    return fail(ErrorCode::kNotFound, "{}: no config.json{}", path,
                is_index ? " beside the index" : "");
  SLUICE_TRY(add_config(config.string(), outline));
  // An index belongs to the config.json beside it, and to no other .json file of the folder.
  const fs::path index = parent / kIndexName;
  if (config.filename() == kConfigName && is_file(index))
    SLUICE_TRY(add_index(index.string(), outline));
  return outline;
}

}  // namespace sluice::io
