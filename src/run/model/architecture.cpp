#include "model/architecture.h"

#include <algorithm>
#include <cmath>

namespace sluice::model {
namespace {

// In the order of messages.
constexpr const Architecture* kArchitectures[] = {
    &kLlama,        //
    &kMistral,      //
    &kMixtral,      //
    &kQwen2,        //
    &kQwen3,        //
    &kQwen3Moe,     //
    &kDeepseekV2,   //
    &kDeepseekV3,   //
    &kDeepseekV32,  //
    &kGlm4MoeLite,  //
    &kGlmMoeDsa,    //
    &kKimiK2,       //
    &kKimiK25,      //
    &kGptOss,       //
    &kGemma3,       //
    &kGemma3Text,   //
    &kGemma4,       //
    &kLlama4,       //
    &kOlmoe,        //
    &kQwen2Moe,     //
    &kGlm4Moe,      //
    &kMinimaxM2,    //
    &kGranite,      //
    &kGraniteMoe,   //
    &kPhi3,         //
    &kPhimoe,       //
    &kQwen3Next,    //
    &kQwen3_5,      //
    &kQwen3_5Moe,   //
    &kNemotronH,    //
    &kGemma2,       //
    &kQwen3Vl,      //
    &kQwen3VlMoe,   //
    &kMimo,         //
    &kSmollm3,      //
    &kSeedOss,      //
    &kErnie4_5,     //
    &kMistral3,     //
};

Status read_activation(const Json& json, const std::string& label) {
  if (json_find(json, "hidden_act") == nullptr) return {};
  SLUICE_ASSIGN(const std::string name, json_string(json, "hidden_act", label));
  if (name == "silu" || name == "swish") return {};
  return fail(ErrorCode::kUnsupported,
              "{}: hidden_act \"{}\" is not known for this family, only "
              "\"silu\"",
              label, name);
}

Status read_layer_types(const Json& types, uint32_t window, ModelConfig& out,
                        const std::string& label) {
  if (!types.is_array() || types.size() != out.dims.layers)
    return fail(ErrorCode::kCorrupt, "{}: layer_types should be a list of {} layers", label,
                out.dims.layers);
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") continue;
    if (types[layer] != "sliding_attention" || window == 0)
      return fail(ErrorCode::kUnsupported, "{}: layer_types says {} for layer {}{}", label,
                  dump_json(types[layer]), layer,
                  window == 0 ? ", but there is no sliding_window in use" : "");
    out.layers[layer].window = window;
  }
  return {};
}

}  // namespace

const Architecture* find_architecture(std::string_view model_type) {
  for (const Architecture* architecture : kArchitectures)
    if (architecture->family == model_type) return architecture;
  return nullptr;
}

std::string architecture_names() {
  std::vector<std::string_view> names;
  for (const Architecture* architecture : kArchitectures) names.push_back(architecture->family);
  return fmt::format("{}", fmt::join(names, ", "));
}

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

Status expect_text(const Json& json, std::string_view key, std::string_view expected,
                   const std::string& label) {
  if (json_find(json, key) == nullptr) return {};
  SLUICE_ASSIGN(const std::string found, json_string(json, key, label));
  if (found == expected) return {};
  return fail(ErrorCode::kUnsupported, "{}: {} \"{}\" is not known for this family, only \"{}\"",
              label, key, found, expected);
}

Result<float> factor_or(const Json& json, std::string_view key, float fallback,
                        const std::string& label) {
  if (json_find(json, key) == nullptr) return fallback;
  SLUICE_ASSIGN(const double value, json_number(json, key, label));
  const auto factor = static_cast<float>(value);
  if (std::isfinite(factor) && factor > 0) return factor;
  return fail(ErrorCode::kCorrupt, "{}: {} should be a positive number, found {}", label, key,
              value);
}

Status read_decoder(const Json& json, const std::string& label, double theta_default,
                    ModelConfig& out, double share_default) {
  SLUICE_TRY(read_norms_and_activation(json, label, out));
  return read_rope_table(json, label, theta_default, out, share_default);
}

Status read_norms_and_activation(const Json& json, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_activation(json, label));
  return read_epsilon(json, label, std::nullopt, out);
}

Status read_epsilon(const Json& json, const std::string& label, std::optional<double> fallback,
                    ModelConfig& out) {
  double epsilon = fallback.value_or(0);
  if (!fallback || json_find(json, "rms_norm_eps") != nullptr) {
    SLUICE_ASSIGN(epsilon, json_number(json, "rms_norm_eps", label));
  }
  if (!(epsilon >= 0 && epsilon < 1))
    return fail(ErrorCode::kCorrupt, "{}: rms_norm_eps should lie in [0, 1), found {}", label,
                epsilon);
  out.rms_norm_eps = static_cast<float>(epsilon);
  return {};
}

Status read_rope_table(const Json& json, const std::string& label, double theta_default,
                       ModelConfig& out, double share_default) {
  SLUICE_ASSIGN(auto scaling,
                read_rope(json, out.dims.head_dim, theta_default, label, share_default));
  out.ropes.push_back({.scaling = std::move(scaling)});
  return {};
}

Status read_windows(const Json& json, const std::string& label, uint32_t window, uint64_t first,
                    ModelConfig& out) {
  if (const Json* types = json_find(json, "layer_types"))
    return read_layer_types(*types, window, out, label);
  for (uint64_t layer = first; layer < out.layers.size(); ++layer)
    out.layers[layer].window = window;
  return {};
}

Status read_rope_layers(const Json& json, const std::string& label, uint64_t interval,
                        ModelConfig& out) {
  for (size_t layer = 0; layer < out.layers.size(); ++layer)
    out.layers[layer].uses_rope = (layer + 1) % interval != 0;
  const Json* list = json_find(json, "no_rope_layers");
  if (list == nullptr || (list->is_array() && list->empty())) return {};
  if (!list->is_array() || list->size() != out.layers.size())
    return fail(ErrorCode::kCorrupt, "{}: no_rope_layers should be a list of {} layers", label,
                out.layers.size());
  for (size_t layer = 0; layer < out.layers.size(); ++layer) {
    const Json holder{{"no_rope_layers", (*list)[layer]}};
    SLUICE_ASSIGN(const int64_t rotates, json_int(holder, "no_rope_layers", 0, 1, label));
    out.layers[layer].uses_rope = rotates == 1;
  }
  return {};
}

Result<uint32_t> read_window(const Json& json, const std::string& label) {
  SLUICE_ASSIGN(const uint64_t window, integer_or(json, "sliding_window", 1, UINT32_MAX, 0, label));
  return static_cast<uint32_t>(window);
}

Status read_experts_per_token(const Json& json, const std::string& label, ModelConfig& out) {
  if (!out.sparse()) return {};
  SLUICE_ASSIGN(const int64_t top, json_int(json, "num_experts_per_tok", 1,
                                            static_cast<int64_t>(out.dims.experts), label));
  out.router.top_k = static_cast<uint32_t>(top);
  return {};
}

}  // namespace sluice::model
