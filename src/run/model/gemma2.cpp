// Gemma 2: norms before and behind either half of a layer, kept less one; soft caps on scores and
// logits; a scaled embedding; every other layer, from the first on, sees a window.
#include <cmath>

#include "model/gemma.h"

namespace sluice::model {
namespace {

constexpr uint64_t kPattern = 2;
constexpr uint64_t kWindowDefault = 4096;

Status read_layers(const Json& config, const std::string& label, ModelConfig& out) {
  // Stock mlx_lm lets every layer see everything.
  if (out.compat == Compat::kMlx) return {};
  SLUICE_ASSIGN(const uint64_t window,
                integer_or(config, "sliding_window", 1, UINT32_MAX, kWindowDefault, label));
  if (json_find(config, "layer_types") != nullptr)
    return read_windows(config, label, static_cast<uint32_t>(window), 0, out);
  for (size_t layer = 0; layer < out.layers.size(); layer += kPattern)
    out.layers[layer].window = static_cast<uint32_t>(window);
  return {};
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_epsilon(config, label, 1e-6, out));
  SLUICE_TRY(read_gemma_activation(config, label, out));
  SLUICE_TRY(read_rope_table(config, label, 1e4, out));
  SLUICE_TRY(read_layers(config, label, out));
  SLUICE_ASSIGN(const float scalar, factor_or(config, "query_pre_attn_scalar", 256, label));
  out.attention_scale = 1 / std::sqrt(scalar);
  SLUICE_ASSIGN(out.attention_softcap, factor_or(config, "attn_logit_softcapping", 50, label));
  SLUICE_ASSIGN(out.logits_softcap, factor_or(config, "final_logit_softcapping", 30, label));
  out.norm = NormKind::kRmsLessOne;
  out.sandwich_norms = true;
  out.embedding_multiplier = embedding_root(out.dims.hidden_size, out.dtype);
  return {};
}

}  // namespace

constinit const Architecture kGemma2 = {"gemma2", configure};

}  // namespace sluice::model
