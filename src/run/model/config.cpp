// What all families have in their configuration alike. The sizes are read by core/families, which
// every source goes through; the rest is the architecture's.
#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "model/architecture.h"

namespace sluice::model {
namespace {

constexpr int64_t kContextMax = int64_t{1} << 32;

}  // namespace

std::string ModelConfig::layer_name(uint32_t layer, std::string_view parameter) const {
  return fmt::format("{}layers.{}.{}", prefix, layer, parameter);
}

std::vector<KvDims> ModelConfig::caches() const {
  std::vector<KvDims> all;
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    all.push_back(layers[layer].kv);
    if (layers[layer].lender != layer) all.back().heads = 0;
  }
  if (index_top_k > 0) all.insert(all.end(), layers.size(), index_kv);
  return all;
}

bool ModelConfig::has_mixer(MixerKind kind) const {
  return std::ranges::find(layers, kind, &LayerConfig::mixer) != layers.end();
}

RecurrentSizes recurrent_sizes(const ModelConfig& config) {
  const families::ModelDims& dims = config.dims;
  RecurrentSizes sizes{.layers = static_cast<size_t>(std::ranges::count_if(
                           config.layers, is_recurrent, &LayerConfig::mixer))};
  if (sizes.layers == 0) return sizes;
  sizes.past = dims.linear_conv_kernel_dim - 1;
  if (config.has_mixer(MixerKind::kMamba)) {
    sizes.columns = dims.length(families::Dim::kMambaConvChannels);
    sizes.heads = dims.mamba_heads;
    sizes.key_dim = dims.mamba_state;
    sizes.value_dim = dims.mamba_head_dim;
    return sizes;
  }
  sizes.columns = dims.length(families::Dim::kLinearQkvRows);
  sizes.heads = dims.linear_value_heads;
  sizes.key_dim = dims.linear_key_head_dim;
  sizes.value_dim = dims.linear_value_head_dim;
  return sizes;
}

bool has_forward_pass(std::string_view model_type) {
  return find_architecture(model_type) != nullptr;
}

Result<ModelConfig> read_config(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                                Compat compat) {
  const Json& json = families::text_config(checkpoint.config);
  const std::string label = families::text_config_label(checkpoint);
  ModelConfig config;
  config.family = map.family;
  config.tied = map.tied;
  config.prefix = map.prefix + "model.";
  config.head = map.prefix + "lm_head";
  config.compat = compat;
  config.dtype = map.dtype;
  const families::Family* family = families::find_family(config.family);
  const Architecture* architecture = find_architecture(config.family);
  if (family == nullptr || architecture == nullptr)
    return fail(ErrorCode::kUnsupported, "{}: models of type {} cannot be run yet ({} can)", label,
                checkpoint.config.value("model_type", config.family), architecture_names());
  Json additions = Json::object();
  SLUICE_ASSIGN(config.dims, families::read_dims(checkpoint, *family, additions));
  const families::ModelDims& dims = config.dims;
  if (dims.heads % dims.kv_heads != 0)
    return fail(ErrorCode::kCorrupt,
                "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", label,
                dims.heads, dims.kv_heads);
  config.layers.resize(dims.layers);
  const auto head_dim = static_cast<uint32_t>(dims.head_dim);
  for (uint64_t layer = 0; layer < dims.layers; ++layer) {
    config.layers[layer].sparse = dims.sparse_layer(layer);
    config.layers[layer].intermediate_size = dims.intermediate_size;
    config.layers[layer].lender = static_cast<uint32_t>(layer);
    config.layers[layer].kv = {static_cast<uint32_t>(dims.kv_heads), head_dim, head_dim};
    if (dims.linear_layer(layer)) {
      config.layers[layer].mixer = MixerKind::kGatedDelta;
      config.layers[layer].kv = {0, head_dim, head_dim};  // no heads: it keeps no keys and values
    }
  }
  config.attention_scale = 1 / std::sqrt(static_cast<float>(dims.head_dim));
  config.router.experts = static_cast<uint32_t>(dims.experts);
  SLUICE_ASSIGN(config.max_position_embeddings,
                integer_or(json, "max_position_embeddings", 1, kContextMax, 0, label));
  SLUICE_TRY(architecture->configure(json, label, config));
  config.tiled_value_heads = map.tiled_value_heads;
  if (map.separate_projections) config.fused_linear_projections = false;
  if (compat == Compat::kMlx)
    for (RopeConfig& rope : config.ropes) use_mlx_yarn(rope.scaling);
  uint32_t recurrent = 0;
  for (LayerConfig& layer : config.layers)
    if (is_recurrent(layer.mixer)) layer.state = recurrent++;
  return config;
}

RopeRule rope_rule(const RopeConfig& rope, size_t context) {
  auto frequencies = numerics::rope_frequencies(rope.scaling, context);
  SLUICE_CHECK(frequencies.has_value());  // read_rope tried it
  return {rope.style, rope.first, *std::move(frequencies)};
}

size_t rope_length(const ModelConfig& config, size_t context) {
  size_t length = 0;
  for (const RopeConfig& rope : config.ropes)
    length = std::max(length, numerics::rope_length(rope.scaling, context));
  return length;
}

}  // namespace sluice::model
