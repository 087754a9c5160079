#include "verify/output.h"

#include <set>

#include "io/directory.h"
#include "io/safetensors.h"
#include "stream/blocks.h"
#include "stream/output_layout.h"

namespace sluice::verify {
namespace {

using allocate::Plan;
using allocate::PlannedTensor;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr uint64_t kJsonBytesMax = 256ull << 20;

Result<Json> read_json(io::Storage& storage, const std::string& path) {
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kJsonBytesMax));
  return parse_json(text, path);
}

Result<Digest> digest_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const std::string hex, json_string(object, key, label));
  return Digest::from_hex(hex);
}

Result<RecordedModule> parse_recorded(const Json& entry, std::string_view label) {
  RecordedModule module;
  SLUICE_ASSIGN(module.source, digest_at(entry, "source_xxh3", label));
  SLUICE_ASSIGN(module.weight, digest_at(entry, "weight_xxh3", label));
  if (entry.contains("scales_xxh3")) {
    SLUICE_ASSIGN(module.scales, digest_at(entry, "scales_xxh3", label));
    SLUICE_ASSIGN(module.biases, digest_at(entry, "biases_xxh3", label));
  }
  SLUICE_ASSIGN(module.error.squared_error, json_number(entry, "squared_error", label));
  SLUICE_ASSIGN(module.error.squared_weight, json_number(entry, "squared_weight", label));
  SLUICE_ASSIGN(module.error.error_max, json_number(entry, "error_max", label));
  return module;
}

// What a stock loader takes for weights.
bool is_weight_file(std::string_view name) {
  return name.starts_with("model") && name.ends_with(".safetensors");
}

// The format that config.json gives a module, or nothing when its entry makes no sense.
// Source: mlx_lm's loader: an entry for the path decides, otherwise the global one.
std::optional<QuantFormat> configured_format(const Json& quantization, const std::string& path) {
  const Json* entry = json_find(quantization, path);
  const Json& settings = entry != nullptr ? *entry : quantization;
  const auto bits = json_int(settings, "bits", 1, 8, "config.json");
  const auto group = json_int(settings, "group_size", 1, 1024, "config.json");
  if (!bits || !group) return std::nullopt;
  const Json* mode = json_find(settings, "mode");
  if (mode != nullptr && *mode != "affine") return std::nullopt;
  return QuantFormat{QuantMode::kAffine, static_cast<uint8_t>(*bits),
                     static_cast<uint16_t>(*group)};
}

void check_config(const Output& output, const families::ModelMap& map, const Plan& plan,
                  Findings& findings) {
  const Json* quantization = json_find(output.config, "quantization");
  std::set<std::string, std::less<>> paths;
  for (const families::OutputModule& module : map.modules) {
    paths.insert(module.path);
    const PlannedTensor* planned = plan.find(module.tensor_name());
    if (planned == nullptr || planned->format.mode == QuantMode::kFloat) {
      const Json* entry =
          quantization != nullptr ? json_find(*quantization, module.path) : nullptr;
      if (module.quantizable && entry != nullptr && *entry != false)
        findings.add(module.tensor_name(), "config.json calls it quantized, but it is not");
      continue;
    }
    const auto found = quantization != nullptr ? configured_format(*quantization, module.path)
                                               : std::optional<QuantFormat>();
    if (found != planned->format)
      findings.add(module.tensor_name(),
                   fmt::format("config.json should say {}, says {}",
                               numerics::format_text(planned->format),
                               found ? numerics::format_text(*found) : "nothing usable"));
  }
  if (quantization == nullptr) return;
  for (const auto& [key, value] : quantization->items())
    if (value.is_object() && !paths.contains(key))
      findings.add(key, "config.json has a quantization entry for a module that does not exist");
  if (output.config.value("quantization_config", Json()) != *quantization)
    findings.add("config.json", "quantization and quantization_config differ");
}

void check_index(const Output& output, Findings& findings) {
  const Json* weight_map = json_find(output.index, "weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) {
    findings.add("model.safetensors.index.json", "has no weight_map");
    return;
  }
  for (const auto& [name, tensor] : output.tensors)
    if (weight_map->value(name, "") != output.file_names[tensor.file])
      findings.add(name, fmt::format("the index places it in \"{}\", it lies in {}",
                                     weight_map->value(name, ""), output.file_names[tensor.file]));
  if (weight_map->size() != output.tensors.size())
    findings.add("model.safetensors.index.json",
                 fmt::format("lists {} tensors, the files hold {}", weight_map->size(),
                             output.tensors.size()));
}

}  // namespace

void Findings::add(std::string subject, std::string message) {
  MutexLock lock(mutex_);
  ++count_;
  if (findings_.size() < kFindingsMax)
    findings_.push_back({std::move(subject), std::move(message)});
}

std::vector<Finding> Findings::take(uint64_t* count) {
  MutexLock lock(mutex_);
  *count = count_;
  return std::move(findings_);
}

Result<Record> read_record(io::Storage& storage, const std::string& out) {
  const std::string path = out + "/sluice.json";
  if (!storage.exists(path))
    return fail(ErrorCode::kNotFound,
                "{} is not there; only folders written by Sluice can be verified", path);
  SLUICE_ASSIGN(Json json, read_json(storage, path));
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, 1, path));
  static_cast<void>(version);
  SLUICE_ASSIGN(const int64_t block, json_int(json, "block_elements", 1, INT64_MAX, path));
  if (static_cast<uint64_t>(block) != stream::kBlockElements)
    return fail(ErrorCode::kUnsupported, "{}: digests over blocks of {} elements, expected {}",
                path, block, stream::kBlockElements);
  SLUICE_ASSIGN(const Json* plan_json, json_object(json, "plan", path));
  SLUICE_ASSIGN(allocate::Plan plan, allocate::plan_from_json(dump_json(*plan_json), path));
  return Record{std::move(plan), std::move(json)};
}

Result<Output> open_output(io::Storage& storage, const std::string& out, const Json& record,
                           Findings& findings) {
  Output output;
  SLUICE_ASSIGN(const std::vector<std::string> names, io::list_directory(out));
  for (const std::string& name : names) {
    if (!is_weight_file(name)) continue;
    SLUICE_ASSIGN(auto source, storage.open_source(out + "/" + name));
    const auto file = static_cast<uint32_t>(output.files.size());
    output.weight_file_bytes += source->size();
    auto header = io::read_safetensors_header(*source, file);
    output.files.push_back(std::move(source));
    output.file_names.push_back(name);
    if (!header) {
      if (header.error().code == ErrorCode::kIo) return std::unexpected(header.error());
      findings.add(name, header.error().message);
      continue;
    }
    for (io::StoredTensor& tensor : header->tensors) {
      const std::string tensor_name = tensor.info.name;
      if (!output.tensors.emplace(tensor_name, std::move(tensor)).second)
        findings.add(tensor_name, "lies in two weight files");
    }
  }
  for (const auto& [name, json] : {std::pair{"config.json", &output.config},
                                   std::pair{"model.safetensors.index.json", &output.index}}) {
    auto parsed = read_json(storage, out + "/" + name);
    if (parsed)
      *json = std::move(*parsed);
    else
      findings.add(name, parsed.error().message);
  }
  if (const Json* modules = json_find(record, "modules"); modules != nullptr)
    for (const auto& [name, entry] : modules->items()) {
      auto recorded = parse_recorded(entry, "sluice.json");
      if (recorded)
        output.recorded.emplace(name, *recorded);
      else
        findings.add(name, recorded.error().message);
    }
  return output;
}

void check_loader_rules(const Output& output, const io::Checkpoint& checkpoint,
                        const families::ModelMap& map, const Plan& plan, Findings& findings) {
  std::set<std::string, std::less<>> expected;
  for (const families::OutputModule& module : map.modules) {
    const PlannedTensor* planned = plan.find(module.tensor_name());
    if (planned == nullptr) {
      findings.add(module.tensor_name(), "the plan says nothing about it");
      continue;
    }
    for (const io::TensorInfo& info :
         stream::output_tensors(stream::layout_module(checkpoint, map, module), planned->format,
                                map.dtype)) {
      expected.insert(info.name);
      const auto found = output.tensors.find(info.name);
      if (found == output.tensors.end()) {
        findings.add(info.name, "is missing");
      } else if (!(found->second.info == info)) {
        const io::TensorInfo& actual = found->second.info;
        findings.add(info.name, fmt::format("should be {} {}, is {} {}",
                                            dtype_info(info.dtype).name,
                                            numerics::shape_text(info.shape),
                                            dtype_info(actual.dtype).name,
                                            numerics::shape_text(actual.shape)));
      }
    }
  }
  for (const auto& [name, tensor] : output.tensors)
    if (!expected.contains(name))
      findings.add(name, fmt::format("should not be there ({})", output.file_names[tensor.file]));
  if (output.weight_file_bytes > plan.data().budget_bytes)
    findings.add("weight files", fmt::format("take {} bytes, the budget is {}",
                                             output.weight_file_bytes, plan.data().budget_bytes));
  if (output.weight_file_bytes != plan.data().exact_bytes)
    findings.add("weight files", fmt::format("take {} bytes, the plan says {}",
                                             output.weight_file_bytes, plan.data().exact_bytes));
  check_config(output, map, plan, findings);
  check_index(output, findings);
}

}  // namespace sluice::verify
