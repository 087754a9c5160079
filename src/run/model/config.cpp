// config.json to ModelConfig. The sizes are read by core/families, which every source goes through.
#include "model/config.h"

#include <algorithm>
#include <cmath>

namespace sluice::model {
namespace {

constexpr int64_t kContextMax = int64_t{1} << 32;
constexpr std::string_view kForwardPasses[] = {"llama", "mistral",   "qwen2",
                                               "qwen3", "qwen3_moe", "mixtral"};

bool is_qwen(const ModelConfig& config) { return config.family.starts_with("qwen"); }

Result<uint64_t> integer_or(const Json& json, std::string_view key, int64_t low, int64_t high,
                            uint64_t fallback, const std::string& label) {
  if (json_find(json, key) == nullptr) return fallback;
  SLUICE_ASSIGN(const int64_t value, json_int(json, key, low, high, label));
  return static_cast<uint64_t>(value);
}

Result<bool> flag_or(const Json& json, std::string_view key, bool fallback,
                     const std::string& label) {
  return json_find(json, key) == nullptr ? Result<bool>(fallback) : json_bool(json, key, label);
}

// What transformers and mlx_lm take where rope_theta is missing.
double default_theta(std::string_view family) { return family == "mixtral" ? 1e6 : 1e4; }

Status refuse_other_activations(const Json& json, const std::string& label) {
  if (json_find(json, "hidden_act") == nullptr) return {};
  SLUICE_ASSIGN(const std::string name, json_string(json, "hidden_act", label));
  if (name == "silu" || name == "swish") return {};
  return fail(ErrorCode::kUnsupported,
              "{}: hidden_act \"{}\" is not known for this family, only "
              "\"silu\"",
              label, name);
}

// Which layers see only a window, where no layer_types say it.
Result<uint64_t> first_windowed_layer(const Json& json, const ModelConfig& config,
                                      const std::string& label) {
  if (config.family == "llama")
    return config.dims.layers;  // its sliding_window belongs to layer_types
  if (!is_qwen(config)) return 0;
  SLUICE_ASSIGN(const int64_t first, json_int(json, "max_window_layers", 0, 1 << 20, label));
  return static_cast<uint64_t>(first);
}

Status read_layer_types(const Json& types, uint32_t window, ModelConfig& config,
                        const std::string& label) {
  if (!types.is_array() || types.size() != config.dims.layers)
    return fail(ErrorCode::kCorrupt, "{}: layer_types should be a list of {} layers", label,
                config.dims.layers);
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") continue;
    if (types[layer] != "sliding_attention" || window == 0)
      return fail(ErrorCode::kUnsupported, "{}: layer_types says {} for layer {}{}", label,
                  dump_json(types[layer]), layer,
                  window == 0 ? ", but there is no sliding_window in use" : "");
    config.windows[layer] = window;
  }
  return {};
}

Status read_windows(const Json& json, ModelConfig& config, const std::string& label) {
  config.windows.assign(config.dims.layers, 0);
  SLUICE_ASSIGN(const bool used, flag_or(json, "use_sliding_window", !is_qwen(config), label));
  SLUICE_ASSIGN(uint64_t window, integer_or(json, "sliding_window", 1, UINT32_MAX, 0, label));
  if (!used) window = 0;
  if (const Json* types = json_find(json, "layer_types"))
    return read_layer_types(*types, static_cast<uint32_t>(window), config, label);
  if (window == 0) return {};
  SLUICE_ASSIGN(const uint64_t first, first_windowed_layer(json, config, label));
  for (uint64_t layer = first; layer < config.dims.layers; ++layer)
    config.windows[layer] = static_cast<uint32_t>(window);
  return {};
}

Status read_experts(const Json& json, ModelConfig& config, const std::string& label) {
  if (!config.sparse()) return {};
  SLUICE_ASSIGN(const int64_t top, json_int(json, "num_experts_per_tok", 1,
                                            static_cast<int64_t>(config.dims.experts), label));
  config.experts_per_token = static_cast<uint32_t>(top);
  // A softmax over the chosen logits alone, Mixtral's rule, is the renormalised softmax over all.
  const bool mixtral = config.family == "mixtral";
  SLUICE_ASSIGN(config.norm_topk_prob, flag_or(json, "norm_topk_prob", mixtral, label));
  if (mixtral) config.norm_topk_prob = true;
  return {};
}

}  // namespace

bool has_forward_pass(std::string_view model_type) {
  return std::ranges::find(kForwardPasses, model_type) != std::end(kForwardPasses);
}

Result<ModelConfig> read_config(const io::Checkpoint& checkpoint, const families::ModelMap& map) {
  const Json& json = checkpoint.config;
  const std::string label = families::config_label(checkpoint);
  ModelConfig config{.family = map.family, .dims = {}, .tied = map.tied, .rope = {}, .windows = {}};
  const families::Family* family = families::find_family(config.family);
  if (family == nullptr || !has_forward_pass(config.family))
    return fail(ErrorCode::kUnsupported, "{}: models of type {} cannot be run yet ({} can)", label,
                json.value("model_type", config.family), fmt::join(kForwardPasses, ", "));
  Json additions = Json::object();
  SLUICE_ASSIGN(config.dims, families::read_dims(checkpoint, *family, additions));
  if (config.dims.heads % config.dims.kv_heads != 0)
    return fail(ErrorCode::kCorrupt,
                "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", label,
                config.dims.heads, config.dims.kv_heads);
  config.qk_norm = config.family.starts_with("qwen3");
  SLUICE_TRY(refuse_other_activations(json, label));
  SLUICE_ASSIGN(const double epsilon, json_number(json, "rms_norm_eps", label));
  if (!(epsilon >= 0 && epsilon < 1))
    return fail(ErrorCode::kCorrupt, "{}: rms_norm_eps should lie in [0, 1), found {}", label,
                epsilon);
  config.rms_norm_eps = static_cast<float>(epsilon);
  SLUICE_ASSIGN(config.rope,
                read_rope(json, config.dims.head_dim, default_theta(config.family), label));
  SLUICE_TRY(read_windows(json, config, label));
  SLUICE_TRY(read_experts(json, config, label));
  SLUICE_ASSIGN(config.max_position_embeddings,
                integer_or(json, "max_position_embeddings", 1, kContextMax, 0, label));
  return config;
}

}  // namespace sluice::model
