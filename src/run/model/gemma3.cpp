// Gemma 3: norms before and behind either half of a layer, kept less one; a scaled embedding; five
// of six layers see a window and have a rotation of their own.
#include <cmath>

#include "model/gemma.h"

namespace sluice::model {
namespace {

constexpr uint64_t kPattern = 6;  // every so many layers one sees everything
constexpr uint64_t kWindowDefault = 4096;
enum Rope : uint32_t { kGlobal, kLocal };

// transformers 5 keeps both rotations in rope_parameters, by the kind of layer.
Status read_ropes(const Json& config, const std::string& label, ModelConfig& out) {
  const Json* both = json_find(config, "rope_parameters");
  const bool by_kind = both != nullptr && json_find(*both, "full_attention") != nullptr;
  const auto table = [&](std::string_view kind, double theta) -> Status {
    Json keys = config;
    if (by_kind) {
      keys.erase("rope_theta");
      keys.erase("rope_scaling");
      const Json* numbers = json_find(*both, kind);
      keys["rope_parameters"] = numbers != nullptr ? *numbers : Json::object();
    } else if (kind == "sliding_attention") {
      keys.erase("rope_scaling");
      keys.erase("rope_parameters");
      keys["rope_theta"] = theta;
    }
    return read_rope_table(keys, label, theta, out);
  };
  double local = 1e4;
  if (json_find(config, "rope_local_base_freq") != nullptr) {
    SLUICE_ASSIGN(local, json_number(config, "rope_local_base_freq", label));
  }
  SLUICE_TRY(table("full_attention", 1e6));
  return table("sliding_attention", local);
}

Status read_layers(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_ASSIGN(const uint64_t window,
                integer_or(config, "sliding_window", 1, UINT32_MAX, kWindowDefault, label));
  uint64_t pattern = kPattern;
  for (const std::string_view key : {"_sliding_window_pattern", "sliding_window_pattern"}) {
    SLUICE_ASSIGN(pattern, integer_or(config, key, 1, 1 << 20, pattern, label));
  }
  if (json_find(config, "layer_types") != nullptr) {
    SLUICE_TRY(read_windows(config, label, static_cast<uint32_t>(window), 0, out));
  } else {
    for (size_t layer = 0; layer < out.layers.size(); ++layer)
      if ((layer + 1) % pattern != 0) out.layers[layer].window = static_cast<uint32_t>(window);
  }
  for (LayerConfig& layer : out.layers) layer.rope = layer.window > 0 ? kLocal : kGlobal;
  return {};
}

Result<float> softcap(const Json& config, std::string_view key, const std::string& label) {
  return factor_or(config, key, 0, label);
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_epsilon(config, label, 1e-6, out));
  SLUICE_TRY(read_gemma_activation(config, label, out));
  SLUICE_TRY(read_ropes(config, label, out));
  SLUICE_TRY(read_layers(config, label, out));
  SLUICE_ASSIGN(const float scalar, factor_or(config, "query_pre_attn_scalar", 256, label));
  out.attention_scale = 1 / std::sqrt(scalar);
  SLUICE_ASSIGN(out.attention_softcap, softcap(config, "attn_logit_softcapping", label));
  SLUICE_ASSIGN(out.logits_softcap, softcap(config, "final_logit_softcapping", label));
  out.norm = NormKind::kRmsLessOne;
  out.qk_norm = QkNorm::kHead;
  out.sandwich_norms = true;
  // Whatever type the file is in, as both references have it.
  out.embedding_multiplier = embedding_root(out.dims.hidden_size, numerics::DType::kBF16);
  return {};
}

}  // namespace

constinit const Architecture kGemma3 = {"gemma3", configure};
constinit const Architecture kGemma3Text = {"gemma3_text", configure};

}  // namespace sluice::model
