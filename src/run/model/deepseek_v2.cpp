// DeepSeek V2, V2-Lite and Coder V2: a softmax router whose choice may be limited to groups by
// their best expert. Neither transformers nor mlx_lm renormalises, whatever norm_topk_prob says.
#include "model/latent.h"

namespace sluice::model {
namespace {

Status configure(const Json& config, const std::string& label, ModelConfig& out) {
  SLUICE_TRY(read_latent_attention(config, label, {}, out));
  SLUICE_TRY(expect_text(config, "scoring_func", "softmax", label));
  SLUICE_TRY(read_experts_per_token(config, label, out));
  const bool grouped = config.value("topk_method", Json()) == "group_limited_greedy";
  if (!grouped) SLUICE_TRY(expect_text(config, "topk_method", "greedy", label));
  if (grouped) SLUICE_TRY(read_expert_groups(config, label, 1, out));
  SLUICE_ASSIGN(out.router.scale, factor_or(config, "routed_scaling_factor", 1, label));
  return {};
}

}  // namespace

constinit const Architecture kDeepseekV2 = {"deepseek_v2", configure};

}  // namespace sluice::model
