// Nemotron-H and Nemotron 3: every layer is one thing alone, a Mamba2 mixer, attention without
// positions, a feed-forward part without a gate, or experts like it with DeepSeek's router.
#include <cmath>

#include "model/latent.h"

namespace sluice::model {
namespace {

using families::LayerKind;

// What the norms of all layers add: under its own key.
Status read_norm(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_ASSIGN(const double epsilon, json_number(config, "layer_norm_epsilon", label));
  if (!(epsilon >= 0 && epsilon < 1))
    return fail(ErrorCode::kCorrupt, "{}: layer_norm_epsilon should lie in [0, 1), found {}", label,
                epsilon);
  out.rms_norm_eps = static_cast<float>(epsilon);
  return {};
}

// Two numbers; the second may be as good as infinite.
Status read_steps(const Json& config, const std::string& label, ModelConfig& out) {
  const Json* limits = json_find(config, "time_step_limit");
  if (limits == nullptr) return {};
  const bool two = limits->is_array() && limits->size() == 2 && (*limits)[0].is_number() &&
                   (*limits)[1].is_number();
  const double low = two ? (*limits)[0].get<double>() : 0;
  const double high = two ? (*limits)[1].get<double>() : -1;
  if (!(low >= 0 && high >= low))
    return fail(ErrorCode::kCorrupt, "{}: time_step_limit should be two ascending numbers", label);
  out.step_min = static_cast<float>(low);
  if (high < double{std::numeric_limits<float>::max()}) out.step_max = static_cast<float>(high);
  return {};
}

Status check_mamba(const std::string& label, const ModelConfig& out) {
  const families::ModelDims& dims = out.dims;
  if (dims.linear_conv_kernel_dim > kTapsMax)
    return fail(ErrorCode::kUnsupported, "{}: conv_kernel {} is more than {}", label,
                dims.linear_conv_kernel_dim, kTapsMax);
  if (dims.mamba_heads % dims.mamba_groups != 0)
    return fail(ErrorCode::kCorrupt, "{}: mamba_num_heads {} is no multiple of n_groups {}", label,
                dims.mamba_heads, dims.mamba_groups);
  return {};
}

void read_layers(ModelConfig& out) {
  for (size_t i = 0; i < out.layers.size(); ++i) {
    const LayerKind kind = out.dims.pattern[i];
    LayerConfig& layer = out.layers[i];
    layer.uses_rope = false;
    layer.sparse = kind == LayerKind::kMoe;
    layer.feeds_forward = kind == LayerKind::kMlp || kind == LayerKind::kMoe;
    if (kind == LayerKind::kAttention) continue;
    layer.mixer = kind == LayerKind::kMamba ? MixerKind::kMamba : MixerKind::kNone;
    layer.kv.heads = 0;
  }
}

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_norm(config, label, out));
  SLUICE_TRY(expect_text(config, "mlp_hidden_act", "relu2", label));
  SLUICE_TRY(expect_text(config, "mamba_hidden_act", "silu", label));
  SLUICE_TRY(read_steps(config, label, out));
  if (json_find(config, "sliding_window") != nullptr)
    return fail(ErrorCode::kUnsupported, "{}: sliding_window is not known for this family", label);
  read_layers(out);
  if (out.has_mixer(MixerKind::kMamba)) SLUICE_TRY(check_mamba(label, out));
  out.prefix = "backbone.";
  out.embedding = "embeddings";
  out.final_norm = "norm_f";
  out.mixer_norm = out.feed_forward_norm = "norm";
  out.attention_path = out.dense_path = "mixer";
  out.gated = false;
  out.activation = {.kind = Activation::kRelu2};
  if (!out.sparse()) return {};
  SLUICE_TRY(read_corrected_router(config, label, {}, out));
  out.expert_names = {.router = "mixer.gate",
                      .experts = "mixer.switch_mlp",
                      .gate = "fc1",
                      .down = "fc2",
                      .correction = "mixer.gate.e_score_correction_bias",
                      .shared = "mixer.shared_experts"};
  if (out.dims.expert_latent_size == 0) return {};
  out.expert_names.into_latent = "mixer.fc1_latent_proj";
  out.expert_names.from_latent = "mixer.fc2_latent_proj";
  return {};
}

}  // namespace

constinit const Architecture kNemotronH = {"nemotron_h", configure};

}  // namespace sluice::model
