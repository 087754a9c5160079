#include "verify/output.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/sealed_json.h"
#include "io/directory.h"
#include "io/safetensors.h"
#include "stream/blocks.h"
#include "stream/output_layout.h"
#include "verify/small_files.h"

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

using Names = std::set<std::string, std::less<>>;

// Whether every key is in one of the two sets; true for what is no object.
bool has_only(const Json& object, const Names& keys, const Names& more) {
  for (const auto& [key, value] : object.items())
    if (object.is_object() && !keys.contains(key) && !more.contains(key)) return false;
  return true;
}

Result<Digest> digest_at(const Json& object, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const std::string hex, json_string(object, key, label));
  return Digest::from_hex(hex);
}

Result<RecordedModule> parse_recorded(const Json& entry, std::string_view label) {
  if (!has_only(entry,
                {"shard", "source_xxh3", "weight_xxh3", "scales_xxh3", "biases_xxh3",
                 "squared_error", "squared_weight", "error_max"},
                {}))
    return fail(ErrorCode::kCorrupt, "{}: has keys that this version does not write", label);
  RecordedModule module;
  SLUICE_ASSIGN(module.shard, json_string(entry, "shard", label));
  SLUICE_ASSIGN(module.source, digest_at(entry, "source_xxh3", label));
  SLUICE_ASSIGN(module.weight, digest_at(entry, "weight_xxh3", label));
  if (entry.contains("scales_xxh3")) {
    SLUICE_ASSIGN(module.scales, digest_at(entry, "scales_xxh3", label));
  }
  if (entry.contains("biases_xxh3")) {
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
  QuantFormat format{QuantMode::kAffine, static_cast<uint8_t>(*bits),
                     static_cast<uint16_t>(*group)};
  const Json* mode = json_find(settings, "mode");
  if (mode == nullptr || *mode == "affine") return format;
  for (const QuantFormat& fp : numerics::kFpFormats)
    if (*mode == numerics::quant_mode_name(fp.mode)) format.mode = fp.mode;
  return is_fp(format) ? std::optional(format) : std::nullopt;
}

void check_config(const Output& output, const families::ModelMap& map, const Plan& plan,
                  Findings& findings) {
  const Json* quantization = json_find(output.config, "quantization");
  if (!plan.default_format() &&
      (quantization != nullptr || json_find(output.config, "quantization_config") != nullptr))
    findings.add("config.json", "speaks of quantization, but no module is quantized");
  Names paths;
  for (const families::OutputModule& module : map.modules) {
    paths.insert(module.path);
    const PlannedTensor* planned = plan.find(module.tensor_name());
    if (planned == nullptr || planned->format.mode == QuantMode::kFloat) {
      const Json* entry = quantization != nullptr ? json_find(*quantization, module.path) : nullptr;
      if (module.quantizable && entry != nullptr && *entry != false)
        findings.add(module.tensor_name(), "config.json calls it quantized, but it is not");
      continue;
    }
    const auto found = quantization != nullptr ? configured_format(*quantization, module.path)
                                               : std::optional<QuantFormat>();
    if (found != planned->format)
      findings.add(
          module.tensor_name(),
          fmt::format("config.json should say {}, says {}", numerics::format_text(planned->format),
                      found ? numerics::format_text(*found) : "nothing usable"));
  }
  if (quantization == nullptr) return;
  if (!has_only(*quantization, {"bits", "group_size", "mode"}, paths))
    findings.add("config.json", "quantization has keys that are neither settings nor modules");
  for (const std::string& path : paths)
    if (const Json* entry = json_find(*quantization, path);
        entry != nullptr && !has_only(*entry, {"bits", "group_size", "mode"}, {}))
      findings.add(path, "config.json has more than bits, group_size and mode for it");
  if (output.config.value("quantization_config", Json()) != *quantization)
    findings.add("config.json", "quantization and quantization_config differ");
}

void check_index(const Output& output, const Plan& plan, Findings& findings) {
  const Json* weight_map = json_find(output.index, "weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) {
    findings.add("model.safetensors.index.json", "has no weight_map");
    return;
  }
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : output.tensors) {
    bytes += tensor.bytes;
    const Json* place = json_find(*weight_map, name);
    if (place == nullptr || *place != output.file_names[tensor.file])
      findings.add(name, fmt::format("the index places it in {}, it lies in {}",
                                     place == nullptr ? "no file" : dump_json(*place),
                                     output.file_names[tensor.file]));
  }
  if (weight_map->size() != output.tensors.size())
    findings.add("model.safetensors.index.json",
                 fmt::format("lists {} tensors, the files hold {}", weight_map->size(),
                             output.tensors.size()));
  const Json expected = {{"total_size", bytes}, {"total_parameters", plan.data().elements}};
  const Json* metadata = json_find(output.index, "metadata");
  if (metadata == nullptr || *metadata != expected)
    findings.add("model.safetensors.index.json",
                 fmt::format("its metadata should be {}, is {}", dump_json(expected),
                             metadata != nullptr ? dump_json(*metadata) : "missing"));
}

// The type that text_config names is the output's own.
Json without_inner_dtype(Json config) {
  if (config.contains("text_config") && config["text_config"].is_object())
    for (const char* key : {"torch_dtype", "dtype"}) config["text_config"].erase(key);
  return config;
}

// Everything but quantization comes from the source, as does the end-of-text token unless
// generation_config.json overrides it.
void check_copied_config(const Output& output, const io::Checkpoint& checkpoint,
                         const families::ModelMap& map, Findings& findings) {
  const Names not_copied = {"_name_or_path", "vision_config", "torch_dtype",
                            "dtype",         "quantization",  "quantization_config"};
  Json expected = without_inner_dtype(checkpoint.config);
  expected.update(without_inner_dtype(map.config_additions));
  const Json found = without_inner_dtype(output.config);
  if (const Json* eos = json_find(checkpoint.generation_config, "eos_token_id"))
    expected["eos_token_id"] = *eos;
  for (const auto& [key, value] : expected.items())
    if (!not_copied.contains(key) && (!found.contains(key) || found[key] != value))
      findings.add("config.json", fmt::format("key \"{}\" is not the source's", key));
  for (const auto& [key, value] : output.config.items())
    if (!not_copied.contains(key) && !expected.contains(key))
      findings.add("config.json", fmt::format("key \"{}\" is not in the source", key));
  for (const Json* level : {&output.config, &families::text_config(output.config)})
    for (const std::string_view key : {"torch_dtype", "dtype"})
      if (const Json* dtype = json_find(*level, key); dtype && *dtype != map.dtype_name)
        findings.add("config.json", fmt::format("{} should be \"{}\", is {}", key, map.dtype_name,
                                                dump_json(*dtype)));
}

// sluice.json beside the plan and the modules: from which files, into which.
void check_record(const Output& output, const Json& record, const io::Checkpoint& checkpoint,
                  const families::ModelMap& map, Findings& findings) {
  Json files = Json::array();
  for (const io::SourceFile& file : checkpoint.identity)
    files.push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"header_xxh3", file.header.hex()}});
  const auto says = [](const Json* object, std::string_view key, const Json& expected) {
    const Json* found = object != nullptr ? json_find(*object, key) : nullptr;
    return found != nullptr && *found == expected;
  };
  const Json* source = json_find(record, "source");
  if (!says(source, "files", files) || !says(source, "xxh3", checkpoint.identity_digest().hex()) ||
      !has_only(*source, {"name", "xxh3", "files"}, {"revision"}))
    findings.add("sluice.json", "does not describe the source's files");
  if (!has_only(record,
                {"version", "tool", "block_elements", "source", "dropped", "files", "modules",
                 "plan", "digest"},
                {}))
    findings.add("sluice.json", "has keys that this version does not write");
  if (!says(&record, "dropped", map.dropped))
    findings.add("sluice.json", "does not list the source tensors that are left out");
  Names names;
  for (const families::OutputModule& module : map.modules) names.insert(module.tensor_name());
  for (const auto& [name, recorded] : output.recorded) {
    const auto tensor = output.tensors.find(name);
    if (!names.contains(name))
      findings.add(name, "sluice.json records it, but the model has no such module");
    else if (tensor != output.tensors.end() &&
             recorded.shard != output.file_names[tensor->second.file])
      findings.add(name, fmt::format("sluice.json places it in \"{}\", it lies in {}",
                                     recorded.shard, output.file_names[tensor->second.file]));
  }
}

}  // namespace

void Findings::add(std::string subject, std::string message) {
  ++count_;
  const uint64_t of_subject = ++by_subject_[subject];
  if (findings_.size() < kFindingsMax && of_subject <= kFindingsPerSubjectMax)
    findings_.push_back({std::move(subject), std::move(message)});
}

void Findings::append(Findings&& other) {
  const uint64_t count = count_ + other.count_;
  for (Finding& finding : other.findings_) {
    --other.by_subject_[finding.subject];
    add(std::move(finding.subject), std::move(finding.message));
  }
  for (const auto& [subject, more] : other.by_subject_) by_subject_[subject] += more;
  count_ = count;
}

std::vector<Finding> Findings::take(uint64_t* count) {
  *count = count_;
  // The last one kept of a subject speaks for those that were not.
  std::set<std::string_view> told;
  for (auto finding = findings_.rbegin(); finding != findings_.rend(); ++finding) {
    if (!told.insert(finding->subject).second) continue;
    const auto kept = std::ranges::count(findings_, finding->subject, &Finding::subject);
    const uint64_t more = by_subject_[finding->subject] - static_cast<uint64_t>(kept);
    if (more > 0) finding->message += fmt::format(" ({} more like this)", more);
  }
  return std::move(findings_);
}

Result<Record> read_record(io::Storage& storage, const std::string& out) {
  const std::string path = out + "/sluice.json";
  if (!storage.exists(path))
    return fail(ErrorCode::kNotFound,
                "{} is not there; only folders written by Sluice can be verified", path);
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  SLUICE_ASSIGN(std::string text, io::read_text(*source, kJsonBytesMax));
  SLUICE_ASSIGN(Json json, parse_json(text, path));
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, 1, path));
  static_cast<void>(version);
  SLUICE_ASSIGN(const int64_t block, json_int(json, "block_elements", 1, INT64_MAX, path));
  if (static_cast<uint64_t>(block) != stream::kBlockElements)
    return fail(ErrorCode::kUnsupported, "{}: digests over blocks of {} elements, expected {}",
                path, block, stream::kBlockElements);
  // Nobody else writes this file, so any other spelling is damage, even of a seventeenth digit.
  if (text != dump_json(json, 1) + "\n")
    return fail(ErrorCode::kCorrupt, "{}: was damaged or edited since Sluice wrote it", path);
  std::string().swap(text);  // megabytes for a large model
  SLUICE_TRY(check_seal(json, path));
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
    SLUICE_ASSIGN(auto source, storage.open_source(fmt::format("{}/{}", out, name)));
    const auto file = static_cast<uint32_t>(output.files.size());
    output.weight_file_bytes += source->size();
    auto header = io::read_safetensors_header(*source, file);
    output.files.push_back(std::move(source));
    output.file_names.push_back(name);
    if (!header) {
      if (is_system_failure(header.error())) return std::unexpected(header.error());
      findings.add(name, header.error().message);
      continue;
    }
    if (header->metadata != std::map<std::string, std::string>{{"format", "mlx"}})
      findings.add(name, "its __metadata__ should be {\"format\": \"mlx\"}");
    for (io::StoredTensor& tensor : header->tensors) {
      const std::string tensor_name = tensor.info.name;
      if (!output.tensors.emplace(tensor_name, std::move(tensor)).second)
        findings.add(tensor_name, "lies in two weight files");
    }
  }
  for (const auto& [name, json] : {std::pair{"config.json", &output.config},
                                   std::pair{"model.safetensors.index.json", &output.index}}) {
    auto parsed = read_json(storage, out + "/" + name);
    if (!parsed && is_system_failure(parsed.error())) return std::unexpected(parsed.error());
    if (!parsed)
      findings.add(name, parsed.error().message);
    else if (!parsed->is_object())
      findings.add(name, "is no JSON object");
    else
      *json = std::move(*parsed);
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

void check_loader_rules(const Output& output, const Json& record, const io::Checkpoint& checkpoint,
                        const families::ModelMap& map, const Plan& plan, Findings& findings) {
  Names expected;
  for (const families::OutputModule& module : map.modules) {
    const PlannedTensor* planned = plan.find(module.tensor_name());
    if (planned == nullptr) {
      findings.add(module.tensor_name(), "the plan says nothing about it");
      continue;
    }
    for (const io::TensorInfo& info : stream::output_tensors(
             stream::layout_module(checkpoint, map, module), planned->format, map.dtype)) {
      expected.insert(info.name);
      const auto found = output.tensors.find(info.name);
      if (found == output.tensors.end()) {
        findings.add(info.name, "is missing");
      } else if (!(found->second.info == info)) {
        const io::TensorInfo& actual = found->second.info;
        findings.add(info.name,
                     fmt::format("should be {} {}, is {} {}", dtype_info(info.dtype).name,
                                 numerics::shape_text(info.shape), dtype_info(actual.dtype).name,
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
  check_copied_config(output, checkpoint, map, findings);
  check_index(output, plan, findings);
  check_record(output, record, checkpoint, map, findings);
}

}  // namespace sluice::verify
