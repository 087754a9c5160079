#include "stream/output_layout.h"

namespace sluice::stream {
namespace {

using numerics::DType;
using numerics::QuantFormat;
using numerics::QuantMode;
using numerics::Shape;

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

// Index of each module's shard.
std::vector<uint32_t> assign_shards(std::span<const uint64_t> module_bytes) {
  std::vector<uint32_t> shard_of(module_bytes.size());
  uint32_t shard = 0;
  uint64_t filled = 0;
  for (size_t i = 0; i < module_bytes.size(); ++i) {
    if (filled > 0 && filled + module_bytes[i] > kShardBytesMax) {
      ++shard;
      filled = 0;
    }
    filled += module_bytes[i];
    shard_of[i] = shard;
  }
  return shard_of;
}

}  // namespace

DType plain_dtype(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                  const families::OutputModule& module) {
  const DType source = checkpoint.tensors[module.recipe.sources.at(0).tensor].info.dtype;
  const numerics::DTypeInfo& info = dtype_info(source);
  const bool castable = info.is_float && !(module.keep_dtype && info.block_elements == 1);
  return castable ? map.dtype : source;
}

LayoutModule layout_module(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                           const families::OutputModule& module) {
  return {module.path, module.parameter, module.shape, plain_dtype(checkpoint, map, module),
          module.quantizable};
}

std::vector<LayoutModule> layout_modules(const io::Checkpoint& checkpoint,
                                         const families::ModelMap& map) {
  std::vector<LayoutModule> modules;
  for (const families::OutputModule& module : map.modules)
    modules.push_back(layout_module(checkpoint, map, module));
  return modules;
}

std::vector<io::TensorInfo> output_tensors(const LayoutModule& module, const QuantFormat& format,
                                           DType model_dtype) {
  if (format.mode == QuantMode::kFloat)
    return {{module.tensor_name(), module.plain_dtype, module.shape}};
  Shape codes(module.shape), groups(module.shape);
  codes.back() = module.shape.back() * format.bits / 32;
  groups.back() = module.shape.back() / format.group_size;
  if (numerics::is_fp(format))
    return {{module.tensor_name(), DType::kU32, codes},
            {module.path + ".scales", DType::kU8, groups}};
  return {{module.tensor_name(), DType::kU32, codes},
          {module.path + ".scales", model_dtype, groups},
          {module.path + ".biases", model_dtype, groups}};
}

Result<OutputLayout> layout_output(std::span<const LayoutModule> modules, DType model_dtype,
                                   std::span<const QuantFormat> formats) {
  SLUICE_CHECK(formats.size() == modules.size());
  OutputLayout layout;
  std::vector<std::vector<io::TensorInfo>> tensors;
  std::vector<uint64_t> module_bytes;
  for (size_t i = 0; i < formats.size(); ++i) {
    const LayoutModule& module = modules[i];
    const bool fits = formats[i].mode == QuantMode::kFloat ||
                      (module.quantizable && can_encode(formats[i], module.shape));
    if (!fits)
      return fail(ErrorCode::kInvalidArgument, "tensor {} of shape {} cannot be stored as {}",
                  module.tensor_name(), numerics::shape_text(module.shape),
                  numerics::format_text(formats[i]));
    tensors.push_back(output_tensors(module, formats[i], model_dtype));
    uint64_t bytes = 0;
    for (const io::TensorInfo& info : tensors.back())
      bytes += numerics::tensor_bytes(info.dtype, info.shape).value_or(0);
    module_bytes.push_back(bytes);
    layout.tensor_bytes += bytes;
    layout.parameters += numerics::element_count(module.shape).value_or(0);
  }

  const std::vector<uint32_t> shard_of = assign_shards(module_bytes);
  layout.shards.resize(shard_of.empty() ? 1 : shard_of.back() + 1);
  for (size_t i = 0; i < tensors.size(); ++i)
    for (io::TensorInfo& info : tensors[i])
      layout.shards[shard_of[i]].tensors.push_back(std::move(info));

  std::vector<std::vector<uint64_t>> offsets;
  for (size_t s = 0; s < layout.shards.size(); ++s) {
    OutputShard& shard = layout.shards[s];
    io::SafetensorsLayout file = io::layout_safetensors(shard.tensors);
    shard.name = shard_name(s, layout.shards.size());
    shard.header = std::move(file.header);
    shard.file_bytes = file.file_bytes;
    layout.file_bytes += file.file_bytes;
    offsets.push_back(std::move(file.offsets));
  }
  std::vector<size_t> next(layout.shards.size(), 0);
  for (size_t i = 0; i < formats.size(); ++i) {
    const uint32_t shard = shard_of[i];
    ModulePlace place{shard, offsets[shard][next[shard]++], 0, 0};
    if (formats[i].mode != QuantMode::kFloat) place.scales = offsets[shard][next[shard]++];
    if (formats[i].mode == QuantMode::kAffine) place.biases = offsets[shard][next[shard]++];
    layout.places.push_back(place);
  }
  return layout;
}

}  // namespace sluice::stream
