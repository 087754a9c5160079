#include "convert/staging.h"

#include <cmath>

#include "base/sealed_json.h"
#include "base/units.h"
#include "convert/front_matter.h"
#include "sluice_version.h"
#include "stream/blocks.h"

namespace sluice::convert {
namespace {

using allocate::Plan;
using numerics::QuantFormat;
using numerics::QuantMode;

// An override without a mode is affine to mlx_lm, whatever the global mode is.
Json format_to_config(const QuantFormat& format, bool with_mode) {
  Json json{{"group_size", format.group_size}, {"bits", format.bits}};
  if (with_mode || format.mode != QuantMode::kAffine)
    json["mode"] = numerics::quant_mode_name(format.mode);
  return json;
}

std::string base_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

// "Qwen/Qwen3-8B" for a repository on a hub, and for a folder of Hugging Face's cache,
// models--Qwen--Qwen3-8B/snapshots/…, whose own name says nothing; else the last component.
std::string model_name(const io::Checkpoint& checkpoint) {
  if (!checkpoint.repository.empty()) return checkpoint.repository;
  const std::string& path = checkpoint.path;
  constexpr std::string_view kMark = "models--";
  const size_t mark = path.rfind(kMark);
  if (mark == std::string::npos || path.find("/snapshots/", mark) == std::string::npos)
    return base_name(path);
  std::string name = path.substr(mark + kMark.size());
  name = name.substr(0, name.find('/'));
  const size_t dashes = name.find("--");
  if (dashes == std::string::npos) return name;
  return fmt::format("{}/{}", name.substr(0, dashes), name.substr(dashes + 2));
}

// Wherever the source names the type: beside the model's numbers or, in models of several parts,
// around them.
void name_dtype(Json& config, const std::string& name) {
  bool named = false;
  const auto replace = [&](Json& level) {
    for (const char* key : {"torch_dtype", "dtype"})
      if (level.contains(key)) {
        level[key] = name;
        named = true;
      }
  };
  replace(config);
  if (config.contains("text_config") && config["text_config"].is_object())
    replace(config["text_config"]);
  if (!named) config["torch_dtype"] = name;
}

}  // namespace

Json output_config(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                   const Plan& plan) {
  Json config = checkpoint.config;
  config.update(map.config_additions);
  config.erase("_name_or_path");
  config.erase("vision_config");
  config.erase("quantization");
  config.erase("quantization_config");
  if (const Json* eos = json_find(checkpoint.generation_config, "eos_token_id"))
    config["eos_token_id"] = *eos;
  name_dtype(config, map.dtype_name);
  const auto global = plan.default_format();
  if (!global) return config;
  Json quantization = format_to_config(*global, true);
  // Modules that mlx_lm's own predicate gives a width are always listed, as it lists them.
  for (const families::OutputModule& module : map.modules) {
    const QuantFormat& format = plan.find(module.tensor_name())->format;
    const bool listed = module.bits_floor > 0 || module.uniform_bits > 0;
    if (format.mode != QuantMode::kFloat && (format != *global || listed))
      quantization[module.path] = format_to_config(format, false);
  }
  config["quantization"] = quantization;
  config["quantization_config"] = std::move(quantization);
  return config;
}

Json output_index(const stream::OutputLayout& layout) {
  Json weight_map = Json::object();
  for (const stream::OutputShard& shard : layout.shards)
    for (const io::TensorInfo& tensor : shard.tensors) weight_map[tensor.name] = shard.name;
  return {
      {"metadata", {{"total_size", layout.tensor_bytes}, {"total_parameters", layout.parameters}}},
      {"weight_map", std::move(weight_map)}};
}

std::string model_card(const io::Checkpoint& checkpoint, const Plan& plan,
                       const stream::OutputLayout& layout) {
  std::string formats;
  for (const allocate::FormatShare& share : allocate::format_shares(plan))
    formats +=
        fmt::format("| {} | {} | {} | {} |\n", numerics::format_text(share.format),
                    numerics::encoder_name(share.encoder), share.modules, bytes_text(share.bytes));
  const std::string name = model_name(checkpoint);
  return fmt::format(
      "{}\n"
      "Prepared by Sluice {} from {}: {} of weights, {:.3f} bits per weight.\n"
      "{}`sluice.json` holds the plan and the digest of every tensor.\n\n"
      "| bits/group | encoder | modules | bytes |\n|---|---|---|---|\n{}",
      merged_front_matter(checkpoint.readme, name), kVersion, name, bytes_text(layout.file_bytes),
      allocate::bits_per_weight(plan),
      plan.data().only_layers.empty()
          ? std::string()
          : fmt::format("It holds layers {} alone, for trying out, and no loader takes it.\n",
                        plan.data().only_layers),
      formats);
}

Json output_record(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                   const Plan& plan, const stream::OutputLayout& layout,
                   const std::vector<ModuleResult>& results, const NamedTexts& written) {
  Json digests = Json::object();
  for (const auto& [name, text] : written) digests[name] = digest_of(text).hex();
  Json files = Json::array();
  for (const io::SourceFile& file : checkpoint.identity)
    files.push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"header_xxh3", file.header.hex()}});
  Json modules = Json::object();
  for (size_t i = 0; i < results.size(); ++i) {
    const families::OutputModule& module = map.modules[i];
    const ModuleResult& result = results[i];
    Json entry{{"shard", layout.shards[layout.places[i].shard].name},
               {"source_xxh3", result.source.hex()},
               {"weight_xxh3", result.weight.hex()},
               {"squared_error", result.error.squared_error},
               {"squared_weight", result.error.squared_weight},
               {"error_max", result.error.error_max}};
    const QuantMode mode = plan.find(module.tensor_name())->format.mode;
    if (mode != QuantMode::kFloat) entry["scales_xxh3"] = result.scales.hex();
    if (mode == QuantMode::kAffine) entry["biases_xxh3"] = result.biases.hex();
    modules[module.tensor_name()] = std::move(entry);
  }
  Json source{
      {"name", checkpoint.repository.empty() ? base_name(checkpoint.path) : checkpoint.repository},
      {"xxh3", checkpoint.identity_digest().hex()},
      {"files", std::move(files)}};
  if (!checkpoint.revision.empty()) source["revision"] = checkpoint.revision;
  // The plan is text that parses: plan_to_json wrote it.
  auto plan_json = parse_json(allocate::plan_to_json(plan), "plan");
  SLUICE_CHECK(plan_json.has_value());
  return sealed({{"version", 1},
                 {"tool", fmt::format("sluice {}", kVersion)},
                 {"block_elements", stream::kBlockElements},
                 {"source", std::move(source)},
                 {"dropped", map.dropped},
                 {"files", std::move(digests)},
                 {"modules", std::move(modules)},
                 {"plan", std::move(*plan_json)}});
}

}  // namespace sluice::convert
