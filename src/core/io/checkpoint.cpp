// Finds out what a path is, reads every header, and holds index, shards and configuration against
// each other. No weights are read.
#include "io/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "io/descriptor_cache.h"
#include "io/gguf_config.h"
#include "io/gguf_set.h"
#include "io/model_files.h"
#include "io/names.h"
#include "io/packed_tensors.h"
#include "io/python_json.h"
#include "io/safetensors.h"
#include "io/safetensors_index.h"

namespace sluice::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kConfigBytesMax = 16 << 20;
constexpr uint64_t kSidecarBytesMax = 128 << 20;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";

// Small files that travel with a model: exact names, and endings.
constexpr std::string_view kSidecarNames[] = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "vocab.txt",
                                              "merges.txt",
                                              "tokenizer.model",
                                              "spiece.model",
                                              "generation_config.json",
                                              "chat_template.json"};
constexpr std::string_view kSidecarEndings[] = {".py", ".jinja", ".tiktoken", "tiktoken.model"};

bool is_sidecar(std::string_view name) {
  return std::find(std::begin(kSidecarNames), std::end(kSidecarNames), name) !=
             std::end(kSidecarNames) ||
         std::any_of(std::begin(kSidecarEndings), std::end(kSidecarEndings),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

bool contains(const std::vector<std::string>& sorted, std::string_view name) {
  return std::binary_search(sorted.begin(), sorted.end(), name);
}

struct ShardName {
  uint64_t number, count;
};

// model-00002-of-00005.safetensors.
std::optional<ShardName> parse_shard_name(std::string_view name) {
  constexpr std::string_view kPrefix = "model-", kMiddle = "-of-", kEnding = ".safetensors";
  if (!name.starts_with(kPrefix) || !name.ends_with(kEnding)) return std::nullopt;
  if (name.size() < kPrefix.size() + kEnding.size()) return std::nullopt;
  name = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kEnding.size());
  const size_t middle = name.find(kMiddle);
  if (middle == std::string_view::npos) return std::nullopt;
  ShardName shard;
  const auto parse = [](std::string_view digits, uint64_t& out) {
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return result.ec == std::errc() && result.ptr == digits.data() + digits.size();
  };
  if (!parse(name.substr(0, middle), shard.number) ||
      !parse(name.substr(middle + kMiddle.size()), shard.count))
    return std::nullopt;
  return shard;
}

// Which weight files make up a folder without an index.
Result<std::vector<std::string>> weights_without_index(const std::string& folder,
                                                       const std::vector<std::string>& names) {
  std::vector<std::string> shards, others;
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    (parse_shard_name(name) ? shards : others).push_back(name);
  }
  if (contains(names, kSingleName)) {
    if (!shards.empty())
      return fail(ErrorCode::kCorrupt,
                  "{}: holds both {} and {}, and no index that says which of them is the model",
                  folder, kSingleName, shards.front());
    return std::vector<std::string>{std::string(kSingleName)};
  }
  if (!shards.empty()) {
    std::set<uint64_t> numbers;
    const uint64_t count = parse_shard_name(shards.front())->count;
    for (const std::string& name : shards) {
      const ShardName shard = *parse_shard_name(name);
      if (shard.count != count || shard.number == 0 || shard.number > count ||
          !numbers.insert(shard.number).second)
        return fail(ErrorCode::kCorrupt, "{}: shard {} does not belong with {}", folder, name,
                    shards.front());
    }
    if (numbers.size() != count)
      return fail(ErrorCode::kNotFound, "{}: {} of {} shards are there (first is {})", folder,
                  numbers.size(), count, shards.front());
    return shards;
  }
  if (others.size() == 1) return others;
  if (others.empty())
    return fail(ErrorCode::kNotFound, "{}: no .safetensors file in this folder", folder);
  return fail(ErrorCode::kUnsupported,
              "{}: {} .safetensors files without an index ({}, {}, …); it is unclear which of "
              "them are the model",
              folder, others.size(), others[0], others[1]);
}

Result<Json> read_json_file(const ModelFiles& files, const std::string& name) {
  SLUICE_ASSIGN(const auto source, files.open(name));
  SLUICE_ASSIGN(const std::string text, read_text(*source, kConfigBytesMax));
  const std::string label = files.label(name);
  SLUICE_ASSIGN(Json value, parse_json(without_python_numbers(text), label));
  if (!value.is_object()) return fail(ErrorCode::kCorrupt, "{}: should be a JSON object", label);
  return value;
}

Status add_sidecars(const ModelFiles& files, const std::vector<std::string>& names,
                    Checkpoint& checkpoint) {
  for (const std::string& name : names) {
    if (!is_sidecar(name)) continue;
    SLUICE_ASSIGN(auto source, files.open(name));
    if (source->size() > kSidecarBytesMax)
      return fail(ErrorCode::kUnsupported, "{}: {} bytes, at most {} are expected of such a file",
                  source->label(), source->size(), kSidecarBytesMax);
    checkpoint.sidecars.push_back({name, std::move(source)});
  }
  return {};
}

// A card is worth keeping, but never a reason to refuse a model.
std::string read_readme(const ModelFiles& files, const std::vector<std::string>& names) {
  constexpr uint64_t kReadmeBytesMax = 1 << 20;
  if (!contains(names, "README.md")) return {};
  const auto source = files.open("README.md");
  if (!source || (*source)->size() > kReadmeBytesMax) return {};
  auto text = read_text(**source, kReadmeBytesMax);
  return text && is_utf8(*text) ? std::move(*text) : std::string();
}

// What modelopt says in a file of its own instead of config.json.
Status read_modelopt_file(const ModelFiles& files, const std::vector<std::string>& names,
                          Checkpoint& checkpoint) {
  constexpr std::string_view kName = "hf_quant_config.json", kKey = "quantization";
  if (!contains(names, kName) || quantization_settings(checkpoint.config) != nullptr ||
      is_mlx_folder(checkpoint.config))
    return {};
  SLUICE_ASSIGN(const Json found, read_json_file(files, std::string(kName)));
  const Json* settings = json_find(found, kKey);
  if (settings == nullptr || !settings->is_object()) return {};
  checkpoint.config["quantization_config"] = *settings;
  checkpoint.config["quantization_config"]["quant_method"] = "modelopt";
  return {};
}

// config.json, generation_config.json and the small files beside the weights.
Status read_folder_files(const ModelFiles& files, const std::vector<std::string>& names,
                         Checkpoint& checkpoint) {
  if (!contains(names, "config.json"))
    return fail(ErrorCode::kNotFound, "{}: no config.json beside the weights", files.location());
  SLUICE_ASSIGN(checkpoint.config, read_json_file(files, "config.json"));
  SLUICE_TRY(read_modelopt_file(files, names, checkpoint));
  if (contains(names, "generation_config.json")) {
    SLUICE_ASSIGN(checkpoint.generation_config, read_json_file(files, "generation_config.json"));
  }
  checkpoint.readme = read_readme(files, names);
  return add_sidecars(files, names, checkpoint);
}

Status add_safetensors(const ModelFiles& files, const std::string& name, Checkpoint& checkpoint) {
  SLUICE_ASSIGN(auto source, files.open(name));
  const auto file = static_cast<uint32_t>(checkpoint.files.size());
  SLUICE_ASSIGN(SafetensorsHeader header, read_safetensors_header(*source, file));
  SLUICE_ASSIGN(const Digest digest, Digest::from_hex(header.text_digest));
  checkpoint.identity.push_back({name, source->size(), digest});
  checkpoint.files.push_back(std::move(source));
  std::move(header.tensors.begin(), header.tensors.end(), std::back_inserter(checkpoint.tensors));
  return {};
}

Status add_all_safetensors(const ModelFiles& files, const std::vector<std::string>& names,
                           Checkpoint& checkpoint) {
  SLUICE_TRY(files.expect(names));
  for (const std::string& name : names) SLUICE_TRY(add_safetensors(files, name, checkpoint));
  return {};
}

// Both lists are sorted by tensor name.
Status compare_with_index(const Checkpoint& checkpoint, const SafetensorsIndex& index) {
  auto tensor = checkpoint.tensors.begin();
  auto entry = index.entries.begin();
  while (tensor != checkpoint.tensors.end() || entry != index.entries.end()) {
    const bool only_index = tensor == checkpoint.tensors.end() ||
                            (entry != index.entries.end() && entry->tensor < tensor->info.name);
    if (only_index)
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor \"{}\" is listed in {} as part of {}, which "
                  "lacks it",
                  checkpoint.path, entry->tensor, kIndexName, index.files[entry->file]);
    const std::string& file = checkpoint.identity[tensor->file].name;
    if (entry == index.entries.end() || tensor->info.name < entry->tensor)
      return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" of {} is not listed in {}",
                  checkpoint.path, tensor->info.name, file, kIndexName);
    if (entry->file != tensor->file)
      return fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" is in {}, {} says {}", checkpoint.path,
                  tensor->info.name, file, kIndexName, index.files[entry->file]);
    ++tensor;
    ++entry;
  }
  return {};
}

Status open_indexed(const ModelFiles& files, const std::vector<std::string>& names,
                    Checkpoint& checkpoint) {
  const std::string label = files.label(std::string(kIndexName));
  SLUICE_ASSIGN(const auto source, files.open(std::string(kIndexName)));
  SLUICE_ASSIGN(std::string text, read_text(*source, kIndexBytesMax));
  SLUICE_ASSIGN(const SafetensorsIndex index, parse_safetensors_index(text, label));
  std::string().swap(text);
  SLUICE_TRY(files.expect(index.files));
  for (const std::string& name : index.files) {
    SLUICE_ASSIGN(const bool there, files.has(name));
    if (!there)
      return fail(ErrorCode::kNotFound, "{}: names the shard {}, which is not in the folder", label,
                  name);
  }
  if (contains(names, kSingleName) && !contains(index.files, kSingleName))
    return fail(ErrorCode::kCorrupt, "{}: holds {} as well as shards listed in {}; remove one",
                files.location(), kSingleName, kIndexName);
  SLUICE_TRY(add_all_safetensors(files, index.files, checkpoint));
  SLUICE_TRY(index_tensors(checkpoint));
  SLUICE_TRY(compare_with_index(checkpoint, index));
  return join_packed_tensors(checkpoint);
}

std::shared_ptr<ByteSource> text_source(std::string name, const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return memory_source(std::move(name), {bytes.begin(), bytes.end()});
}

Status open_gguf(const ModelFiles& files, const std::string& name, Checkpoint& checkpoint) {
  checkpoint.kind = SourceKind::kGguf;
  SLUICE_ASSIGN(GgufSet set, open_gguf_set(files, name));
  const StoredTensor* factors = set.header.find_tensor("rope_freqs.weight");
  SLUICE_ASSIGN(checkpoint.config,
                rebuild_config(set.header, *set.files[factors == nullptr ? 0 : factors->file]));
  checkpoint.generation_config = rebuild_generation_config(set.header);
  SLUICE_ASSIGN(auto texts, rebuild_tokenizer(set.header, set.files.front()->label()));
  texts.push_back({"generation_config.json", dump_json(checkpoint.generation_config, 2) + "\n"});
  for (const TextFile& file : texts)
    checkpoint.sidecars.push_back({file.name, text_source(file.name, file.text)});
  std::sort(checkpoint.sidecars.begin(), checkpoint.sidecars.end(),
            [](const Sidecar& a, const Sidecar& b) { return a.name < b.name; });
  for (size_t i = 0; i < set.files.size(); ++i)
    checkpoint.identity.push_back({set.names[i], set.files[i]->size(), set.digests[i]});
  checkpoint.files = std::move(set.files);
  checkpoint.tensors = std::move(set.header.tensors);
  return index_tensors(checkpoint);
}

Status open_folder(const ModelFiles& files, Checkpoint& checkpoint) {
  SLUICE_ASSIGN(const auto names, files.names());
  const bool has_safetensors = std::ranges::any_of(
      names, [](const std::string& name) { return name.ends_with(".safetensors"); });
  if (!has_safetensors && !contains(names, kIndexName)) {
    SLUICE_ASSIGN(const auto gguf, find_gguf_model(files.location(), names));
    if (gguf) return open_gguf(files, *gguf, checkpoint);
  }
  SLUICE_TRY(read_folder_files(files, names, checkpoint));
  if (contains(names, kIndexName)) return open_indexed(files, names, checkpoint);
  SLUICE_ASSIGN(const auto weights, weights_without_index(files.location(), names));
  SLUICE_TRY(add_all_safetensors(files, weights, checkpoint));
  SLUICE_TRY(index_tensors(checkpoint));
  return join_packed_tensors(checkpoint);
}

Status open_single(const ModelFiles& files, const std::string& name, Checkpoint& checkpoint) {
  SLUICE_ASSIGN(const auto names, files.names());
  SLUICE_TRY(read_folder_files(files, names, checkpoint));
  SLUICE_TRY(add_safetensors(files, name, checkpoint));
  SLUICE_TRY(index_tensors(checkpoint));
  return join_packed_tensors(checkpoint);
}

Status open_file(const ModelFiles& files, const std::string& name, Checkpoint& checkpoint) {
  SLUICE_ASSIGN(const auto source, files.open(name));
  std::byte magic[4] = {};
  if (source->size() >= sizeof magic) SLUICE_TRY(source->read_at(0, magic));
  const bool is_gguf =
      std::equal(std::begin(magic), std::end(magic), "GGUF",
                 [](std::byte b, char c) { return std::to_integer<char>(b) == c; });
  if (is_gguf || name.ends_with(".gguf")) return open_gguf(files, name, checkpoint);
  if (name.ends_with(".safetensors")) return open_single(files, name, checkpoint);
  return fail(ErrorCode::kUnsupported, "{}: neither a folder, a .safetensors file nor a .gguf file",
              source->label());
}

}  // namespace

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name.find(name);
  return found == by_name.end() ? nullptr : &tensors[found->second];
}

Digest Checkpoint::identity_digest() const {
  // Every part is preceded by its length, so that no two checkpoints feed the same bytes.
  Hasher hasher;
  const auto add_text = [&](std::string_view text) {
    hasher.update(fmt::format("{}:", text.size()));
    hasher.update(text);
  };
  for (const SourceFile& file : identity) {
    add_text(file.name);
    add_text(fmt::format("{}", file.bytes));
    hasher.update(file.header);
  }
  add_text(dump_json(config));
  return hasher.finish();
}

Result<std::shared_ptr<Checkpoint>> open_checkpoint(const std::string& path,
                                                    const ModelFiles& files,
                                                    const std::string& name) {
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->path = path;
  SLUICE_TRY(name.empty() ? open_folder(files, *checkpoint) : open_file(files, name, *checkpoint));
  return checkpoint;
}

Result<std::shared_ptr<const Checkpoint>> open_checkpoint(const std::string& path) {
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "the model's path is empty");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    return fail(ErrorCode::kNotFound, "{}: no such file or folder", path);
  if (error) return fail(ErrorCode::kIo, "{}: {}", path, error.message());
  const auto descriptors = std::make_shared<DescriptorCache>();
  std::string folder = path, name;
  if (!fs::is_directory(status)) {
    folder = fs::path(path).parent_path().string();
    name = fs::path(path).filename().string();
  }
  const auto files = local_files(folder, descriptors);
  SLUICE_ASSIGN(auto checkpoint, open_checkpoint(path, *files, name));
  checkpoint->descriptors = descriptors;
  return checkpoint;
}

}  // namespace sluice::io
