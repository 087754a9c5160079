#include "cli/uniform_plan.h"

#include <algorithm>

#include "io/packed_tensors.h"
#include "stream/block_reader.h"
#include "stream/output_layout.h"

namespace sluice::cli {
namespace {

using families::OutputModule;
using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

// Of the modules that mlx_lm gives a width of their own.
constexpr uint16_t kFixedGroup = 64;

double bits_per_weight(const QuantFormat& format, const OutputModule& module,
                       numerics::DType dtype) {
  const uint64_t bytes = numerics::encoded_bytes(format, module.shape, dtype).total();
  return 8 * static_cast<double>(bytes) / static_cast<double>(module.elements());
}

// What a publisher packed stays packed as it is, unless something smaller is wanted: any other
// format would take more room and be farther from the source. mlx_lm leaves such modules alone too.
// Folders that were converted before are whoever converts them again's own choice.
QuantFormat unless_published(const OpenedModel& model, const OutputModule& module,
                             const QuantFormat& wanted) {
  if (io::is_mlx_folder(model.checkpoint->config)) return wanted;
  const auto source = stream::describe_source(*model.checkpoint, module);
  if (!source) return wanted;
  const std::vector<QuantFormat> lossless = lossless_formats(*source, model.map.dtype);
  if (lossless.empty() || !always_lossless(*source, model.map.dtype)) return wanted;
  const QuantFormat& stored = lossless[0];
  const bool as_good = std::ranges::find(lossless, wanted) != lossless.end();
  const bool smaller = bits_per_weight(wanted, module, model.map.dtype) <
                       bits_per_weight(stored, module, model.map.dtype);
  return as_good || smaller || !can_encode(stored, module.shape) ? wanted : stored;
}

// What a plan may promise from headers alone.
bool moves(const stream::ModuleSource& source, const QuantFormat& format, numerics::DType dtype) {
  if (!always_lossless(source, dtype)) return false;
  const std::vector<QuantFormat> lossless = lossless_formats(source, dtype);
  return std::ranges::find(lossless, format) != lossless.end();
}

QuantFormat possible_format(const OutputModule& module, QuantFormat wanted) {
  if (!module.quantizable || wanted.mode == QuantMode::kFloat) return {};
  if (module.bits_floor > 0)
    wanted = {QuantMode::kAffine, static_cast<uint8_t>(module.bits_floor), kFixedGroup};
  if (is_fp(wanted)) return can_encode(wanted, module.shape) ? wanted : QuantFormat{};
  for (uint16_t group = wanted.group_size; group >= numerics::kAffineGroups[0]; group /= 2) {
    const QuantFormat format{wanted.mode, wanted.bits, group};
    if (can_encode(format, module.shape)) return format;
  }
  return {};
}

}  // namespace

QuantFormat uniform_format(const OpenedModel& model, const OutputModule& module,
                           const QuantFormat& wanted) {
  const QuantFormat format = possible_format(module, wanted);
  return format.mode == QuantMode::kFloat ? format : unless_published(model, module, format);
}

FormatRule uniform_rule(QuantFormat format) {
  return [=](const OutputModule& module) {
    if (module.uniform_bits == 0 || format.mode == QuantMode::kFloat) return format;
    return QuantFormat{QuantMode::kAffine, static_cast<uint8_t>(module.uniform_bits), kFixedGroup};
  };
}

Result<FormatRule> recipe_rule(const families::ModelMap& map, std::string_view recipe,
                               uint16_t group_size) {
  SLUICE_CHECK(std::ranges::find(kRecipes, recipe) != std::end(kRecipes));
  const auto is_down = [](const OutputModule& module) {
    return module.path.find("down_proj") != std::string::npos;
  };
  if (std::ranges::none_of(map.modules, is_down))
    return fail(ErrorCode::kUnsupported,
                "{} says what to do with down_proj, and this model ({}) has none", recipe,
                map.family);
  const auto bits = [&](size_t place) { return static_cast<uint8_t>(recipe[place] - '0'); };
  const QuantFormat low{QuantMode::kAffine, bits(recipe.size() - 3), group_size};
  const QuantFormat high{QuantMode::kAffine, bits(recipe.size() - 1), group_size};
  const int layers = map.layers;
  return [=](const OutputModule& module) {
    const auto has = [&](std::string_view part) {
      return module.path.find(part) != std::string::npos;
    };
    const int layer = std::max(module.layer, 0);
    const bool more =
        layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
    const bool widened = has("v_proj") || has("v_a_proj") || has("v_b_proj") || has("down_proj");
    return (widened && more) || has("lm_head") ? high : low;
  };
}

Result<allocate::Plan> uniform_plan(Context& context, const OpenedModel& model,
                                    const FormatRule& wanted, const std::string& name,
                                    Encoder encoder, const std::string& parity) {
  allocate::PlanData data;
  std::vector<QuantFormat> formats;
  uint64_t smaller_group = 0, unquantized = 0;
  for (const OutputModule& module : model.map.modules) {
    allocate::PlannedTensor tensor;
    tensor.path = module.path;
    tensor.parameter = module.parameter;
    tensor.role = role_name(module.role);
    tensor.layer = module.layer;
    tensor.elements = module.elements();
    tensor.quantizable = module.quantizable;
    const QuantFormat format = wanted(module);
    tensor.format = uniform_format(model, module, format);
    const bool quantized = tensor.format.mode != QuantMode::kFloat;
    tensor.encoder = quantized ? encoder : Encoder::kCast;
    if (quantized) {
      SLUICE_ASSIGN(const stream::ModuleSource source,
                    stream::describe_source(*model.checkpoint, module));
      if (moves(source, tensor.format, model.map.dtype)) tensor.encoder = Encoder::kLossless;
    }
    tensor.bytes =
        numerics::encoded_bytes(
            tensor.format, module.shape,
            quantized ? model.map.dtype : stream::plain_dtype(*model.checkpoint, model.map, module))
            .total();
    if (module.quantizable && format.mode != QuantMode::kFloat) {
      unquantized += !quantized;
      smaller_group += quantized && module.bits_floor == 0 &&
                       tensor.encoder != Encoder::kLossless && tensor.format != format;
    }
    formats.push_back(tensor.format);
    data.elements += tensor.elements;
    data.tensor_bytes += tensor.bytes;
    data.tensors.push_back(std::move(tensor));
  }
  if (smaller_group > 0)
    context.console->warn(fmt::format(
        "{} modules have rows that the group does not divide; they get a smaller group, recorded "
        "in config.json",
        smaller_group));
  if (unquantized > 0)
    context.console->warn(fmt::format(
        "{} modules have rows that no group divides; they stay unquantized", unquantized));
  SLUICE_ASSIGN(const stream::OutputLayout layout,
                stream::layout_output(stream::layout_modules(*model.checkpoint, model.map),
                                      model.map.dtype, formats));
  data.exact_bytes = data.budget_bytes = layout.file_bytes;
  data.objective = allocate::objective_name(allocate::Objective::kNrmseSquared);
  data.method = "uniform";
  data.configs = name;
  data.source = model.checkpoint->identity_digest();
  data.family = model.map.family;
  data.dtype = model.map.dtype_name;
  data.parity = parity;
  data.only_layers = model.map.only_layers;
  return allocate::Plan::create(std::move(data));
}

}  // namespace sluice::cli
