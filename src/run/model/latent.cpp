#include "model/latent.h"

#include <cmath>

namespace sluice::model {
namespace {

constexpr float kLatentNormEps = 1e-6f;

// yarn's magnitude, which these families multiply into the scale of the scores instead of the
// rotation: once for the query and once for the key.
float score_scale(const families::ModelDims& dims, const numerics::RopeScaling& rope) {
  const double width = static_cast<double>(dims.qk_nope_head_dim + dims.qk_rope_head_dim);
  double magnitude = 1;
  if (rope.rule != numerics::RopeRule::kDefault && rope.mscale_all_dim.value_or(0) != 0)
    magnitude = numerics::yarn_magnitude(rope.factor, *rope.mscale_all_dim);
  return static_cast<float>(magnitude * magnitude / std::sqrt(width));
}

}  // namespace

Status read_latent_attention(const Json& json, const std::string& label,
                             const LatentDefaults& defaults, ModelConfig& out) {
  const families::ModelDims& dims = out.dims;
  SLUICE_TRY(read_norms_and_activation(json, label, out));
  const bool mlx = out.compat == Compat::kMlx;
  out.latent_norm_eps =
      mlx && defaults.mlx_latent_eps_is_config ? out.rms_norm_eps : kLatentNormEps;
  RopeConfig rope;
  SLUICE_ASSIGN(rope.scaling, read_rope(json, dims.qk_rope_head_dim, defaults.rope_theta, label));
  SLUICE_ASSIGN(const bool interleaved, flag_or(json, "rope_interleave", true, label));
  if (interleaved || mlx) rope.style = RopeStyle::kInterleaved;
  rope.first = static_cast<uint32_t>(dims.kv_lora_rank);
  out.attention_scale = score_scale(dims, rope.scaling);
  out.ropes.push_back(std::move(rope));
  const auto rank = static_cast<uint32_t>(dims.kv_lora_rank);
  const uint32_t key = rank + static_cast<uint32_t>(dims.qk_rope_head_dim);
  for (LayerConfig& layer : out.layers) {
    layer.mixer = MixerKind::kLatentAttention;
    layer.kv = {.heads = 1, .key_dim = key, .value_dim = rank, .values_in_keys = true};
  }
  out.expert_names.shared = "mlp.shared_experts";
  return {};
}

Status read_expert_groups(const Json& json, const std::string& label, uint32_t best,
                          ModelConfig& out) {
  RouterRule& router = out.router;
  const auto experts = static_cast<int64_t>(out.dims.experts);
  SLUICE_ASSIGN(const uint64_t groups, integer_or(json, "n_group", 1, experts, 1, label));
  SLUICE_ASSIGN(const uint64_t kept, integer_or(json, "topk_group", 1, experts, groups, label));
  if (out.dims.experts % groups != 0 || kept > groups ||
      out.dims.experts / groups * kept < router.top_k)
    return fail(
        ErrorCode::kCorrupt,
        "{}: {} experts in n_group {} groups, of which topk_group {} are kept, do not give {} "
        "for each token",
        label, out.dims.experts, groups, kept, router.top_k);
  router.groups = static_cast<uint32_t>(groups);
  router.groups_kept = static_cast<uint32_t>(kept);
  router.group_best = best;
  return {};
}

Status read_corrected_router(const Json& json, const std::string& label,
                             const LatentDefaults& defaults, ModelConfig& out) {
  SLUICE_TRY(expect_text(json, "topk_method", "noaux_tc", label));
  SLUICE_TRY(expect_text(json, "scoring_func", "sigmoid", label));
  SLUICE_TRY(read_experts_per_token(json, label, out));
  SLUICE_TRY(read_expert_groups(json, label, 2, out));
  out.router.score = RouterScore::kSigmoid;
  out.expert_names.correction = "mlp.gate.e_score_correction_bias";
  // A corrected score may be negative, and then experts of dropped groups go before it.
  if (out.compat == Compat::kMlx) out.router.dropped_score = 0;
  SLUICE_ASSIGN(out.router.renormalize, flag_or(json, "norm_topk_prob", true, label));
  SLUICE_ASSIGN(out.router.scale,
                factor_or(json, "routed_scaling_factor", defaults.routed_scaling_factor, label));
  return {};
}

}  // namespace sluice::model
