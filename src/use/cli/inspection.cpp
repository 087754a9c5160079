#include "cli/inspection.h"

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "cli/uniform_plan.h"
#include "cli/user_devices.h"
#include "families/family.h"
#include "families/kv_shape.h"
#include "families/outline.h"
#include "io/model_outline.h"
#include "model/config.h"
#include "numerics/affine_price.h"
#include "numerics/block_codec.h"
#include "runtime/weight_entry.h"
#include "stream/output_layout.h"

namespace sluice::cli {
namespace {

using numerics::QuantFormat;
using numerics::QuantMode;

std::vector<QuantFormat> uniform_formats() {
  std::vector<QuantFormat> formats;
  for (const uint8_t bits : numerics::kAffineBits)
    for (const uint16_t group : numerics::kAffineGroups)
      formats.push_back({QuantMode::kAffine, bits, group});
  formats.insert(formats.end(), std::begin(numerics::kFpFormats), std::end(numerics::kFpFormats));
  formats.emplace_back();
  return formats;
}

// By the rules of `quantize`.
Result<uint64_t> uniform_bytes(const OpenedModel& model, const QuantFormat& format) {
  const FormatRule wanted = uniform_rule(format);
  std::vector<QuantFormat> formats;
  for (const families::OutputModule& module : model.map.modules)
    formats.push_back(uniform_format(model, module, wanted(module)));
  SLUICE_ASSIGN(const stream::OutputLayout layout,
                stream::layout_output(stream::layout_modules(*model.checkpoint, model.map),
                                      model.map.dtype, formats));
  return layout.file_bytes;
}

uint64_t smaller_groups(const OpenedModel& model, const QuantFormat& format) {
  if (format.mode != QuantMode::kAffine) return 0;
  const FormatRule wanted = uniform_rule(format);
  return static_cast<uint64_t>(
      std::ranges::count_if(model.map.modules, [&](const families::OutputModule& module) {
        const QuantFormat asked = wanted(module);
        const QuantFormat given = uniform_format(model, module, asked);
        const bool same_width = given.mode == asked.mode && given.bits == asked.bits;
        return module.bits_floor == 0 && module.quantizable && given != asked &&
               (same_width || given.mode == QuantMode::kFloat);
      }));
}

// The bits of a weight with its share of scales and biases, of a model in 16-bit floats.
double bits_per_weight(const QuantFormat& format) {
  if (format.mode == QuantMode::kFloat) return 16;
  return format.bits + (numerics::is_fp(format) ? 8.0 : 32.0) / format.group_size;
}

std::string model_type_of(const Json& config) {
  const Json* type = json_find(config, "model_type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

// Everything that follows from tensors' shapes.
Status add_sizes(Inspection& result) {
  const OpenedModel model{result.checkpoint, result.map};
  result.parameters = 0;
  for (const families::OutputModule& module : model.map.modules) {
    RoleSize& role = result.roles[std::string(role_name(module.role))];
    ++role.modules;
    role.elements += module.elements();
    result.parameters += module.elements();
    if (is_expert(module.role)) result.experts = std::max(result.experts, module.experts());
  }
  if (result.experts == 1) result.experts = 0;
  const uint64_t chosen = families::experts_per_token(model.checkpoint->config);
  result.experts_per_token = std::min(chosen, result.experts);
  result.active_parameters = families::active_elements(model.map, result.experts_per_token);
  for (const QuantFormat& format : uniform_formats()) {
    SLUICE_ASSIGN(const uint64_t bytes, uniform_bytes(model, format));
    result.uniform.push_back({format, bytes, smaller_groups(model, format)});
  }
  if (const auto runs = model::read_config(*model.checkpoint, model.map); !runs)
    result.runs_not = runs.error().message;
  return {};
}

void add_stored(Inspection& result) {
  for (const io::StoredTensor& tensor : result.checkpoint->tensors) {
    StoredSize& stored = result.stored[io::storage_text(tensor)];
    ++stored.tensors;
    stored.bytes += tensor.bytes;
    result.source_bytes += tensor.bytes;
    if (const auto format = numerics::lossless_affine(tensor.info.dtype))
      stored.lossless = numerics::format_text(*format);
  }
  result.source_files = result.checkpoint->files.size();
}

// What of it products cannot read as it is stored; empty: nothing.
std::string cannot_be_loaded(const Inspection& result) {
  const auto map = families::map_model(*result.checkpoint, "", result.map.only_layers,
                                       families::Arrangement::kAsStored);
  if (!map) return map.error().message;
  for (const families::OutputModule& module : runtime::modules_to_keep(*result.checkpoint, *map))
    if (const auto entry = runtime::make_entry(*result.checkpoint, module); !entry)
      return entry.error().message;
  return {};
}

Result<Inspection> of_weights(OpenedModel model) {
  Inspection result;
  result.model_type = model_type_of(model.checkpoint->config);
  result.family = model.map.family;
  result.checkpoint = std::move(model.checkpoint);
  result.map = std::move(model.map);
  SLUICE_TRY(add_sizes(result));
  add_stored(result);
  if (result.runs_not.empty()) result.runs_not = cannot_be_loaded(result);
  return result;
}

// Why a model of that configuration could not be prepared, or on what it depends.
void judge(const io::ModelOutline& outline, Inspection& result) {
  io::Checkpoint as_published = *result.checkpoint;
  as_published.config = outline.config;
  const bool known = families::find_family(result.model_type) != nullptr;
  if (known) {
    if (const auto map = families::map_model(as_published, ""); !map) result.refused = map.error();
    return;
  }
  if (auto refused = families::refuse_by_name(as_published, result.model_type); !refused) {
    result.refused = refused.error();
    return;
  }
  result.prepares_if = "where its tensors are plain linear layers and embeddings";
}

std::string cannot_run_text(const std::string& path, const std::string& model_type) {
  return fmt::format("{}: models of type {} cannot be run yet", path, model_type);
}

// A family without a table: about how large, if the configuration says that.
Status add_estimate(const io::ModelOutline& outline, Inspection& result) {
  const auto size = families::estimate_size(outline.config);
  result.basis = Basis::kEstimate;
  result.runs_not = cannot_run_text(outline.path, result.model_type);
  auto bare = std::make_shared<io::Checkpoint>();
  bare->path = outline.path;
  bare->config = outline.config;
  result.checkpoint = std::move(bare);
  if (!size) return {};
  result.map.layers = static_cast<int>(size->layers);
  result.parameters = size->parameters;
  result.active_parameters = size->active_parameters;
  result.experts = size->experts;
  result.experts_per_token = size->experts_per_token;
  for (const QuantFormat& format : uniform_formats()) {
    const double bytes = static_cast<double>(size->parameters) * bits_per_weight(format) / 8;
    result.uniform.push_back({format, static_cast<uint64_t>(bytes), 0});
  }
  return {};
}

// dtype: --dtype. Sizes do not depend on how the source is packed.
Result<Inspection> of_outline(const io::ModelOutline& outline, const std::string& dtype,
                              const std::string& only_layers) {
  Inspection result;
  result.basis = Basis::kConfig;
  result.model_type = model_type_of(outline.config);
  result.source_bytes = outline.tensor_bytes;
  result.source_files = outline.shards;
  if (families::find_family(result.model_type) == nullptr) {
    SLUICE_TRY(add_estimate(outline, result));
  } else {
    SLUICE_ASSIGN(result.checkpoint, families::outlined_checkpoint(outline));
    SLUICE_ASSIGN(result.map, families::map_model(*result.checkpoint, dtype, only_layers));
    result.family = result.map.family;
    SLUICE_TRY(add_sizes(result));
  }
  judge(outline, result);
  return result;
}

// Settings that the family does not know: what can be said is why, and about how large.
Result<Inspection> of_strange_settings(const io::ModelOutline& outline, Error refused) {
  Inspection result;
  result.model_type = model_type_of(outline.config);
  result.family = result.model_type;
  result.source_bytes = outline.tensor_bytes;
  result.source_files = outline.shards;
  SLUICE_TRY(add_estimate(outline, result));
  result.refused = std::move(refused);
  return result;
}

Result<Inspection> inspect_outline(const io::ModelOutline& outline, const std::string& dtype,
                                   const std::string& only_layers) {
  auto result = of_outline(outline, dtype, only_layers);
  if (result || result.error().code != ErrorCode::kUnsupported) return result;
  return of_strange_settings(outline, std::move(result).error());
}

// What the configuration beside weights that are not supported tells.
Result<Inspection> inspect_refused(const std::string& path, const Error& refused) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  const std::filesystem::path parent =
      folder ? std::filesystem::path(path) : std::filesystem::path(path).parent_path();
  const auto outline = io::open_outline((parent / "config.json").string());
  if (refused.code != ErrorCode::kUnsupported || path.ends_with(".gguf") || !outline)
    return std::unexpected(refused);
  io::ModelOutline described = *outline;
  described.tensor_names.clear();  // they may be what is not supported
  auto result = inspect_outline(described, "", "");
  if (!result) return std::unexpected(refused);
  result->refused = refused;
  return result;
}

Status add_devices(Context& context, uint64_t context_tokens, Inspection& result) {
  SLUICE_ASSIGN(result.devices, known_devices(context));
  const auto kv = kv_geometry(families::kv_shapes(*result.checkpoint, result.map));
  const auto bytes = allocate::kv_bytes(kv, context_tokens);
  if (!bytes)
    return fail(ErrorCode::kInvalidArgument, "keys and values of {} tokens are out of range",
                context_tokens);
  result.context_tokens = context_tokens;
  result.kv_bytes = *bytes;
  return {};
}

}  // namespace

bool is_yardstick(const QuantFormat& format) {
  return format.group_size == 64 || format.mode == QuantMode::kFloat;
}

const UniformSize* Inspection::uniform_at(const QuantFormat& format) const {
  const auto found = std::ranges::find(uniform, format, &UniformSize::format);
  return found == uniform.end() ? nullptr : &*found;
}

DeviceFit Inspection::fit(const allocate::DeviceProfile& device) const {
  DeviceFit fit{device, 0, nullptr};
  const auto taken = checked_add(kv_bytes, allocate::kRuntimeScratchBytes);
  if (taken && *taken < device.usable_bytes) fit.weight_bytes_max = device.usable_bytes - *taken;
  for (const UniformSize& size : uniform)
    if (is_yardstick(size.format) && size.bytes <= fit.weight_bytes_max) fit.widest = &size;
  return fit;
}

Result<Inspection> inspect_model(Context& context, const std::string& path,
                                 const std::string& dtype, const std::string& only_layers,
                                 uint64_t context_tokens) {
  Result<Inspection> result = Inspection();
  if (io::is_outline(path)) {
    SLUICE_ASSIGN(const io::ModelOutline outline, io::open_outline(path));
    result = inspect_outline(outline, dtype, only_layers);
  } else if (auto model = open_model(context, path, dtype, only_layers)) {
    result = of_weights(*std::move(model));
  } else {
    result = inspect_refused(path, model.error());
  }
  if (!result) return result;
  if (result->refused && result->runs_not.empty()) result->runs_not = result->refused->message;
  SLUICE_TRY(add_devices(context, context_tokens, *result));
  return result;
}

}  // namespace sluice::cli
