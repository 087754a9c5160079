// What the families with latent attention have in common in their configurations. Private to model.
#pragma once

#include "model/architecture.h"

namespace sluice::model {

// What a family takes where its configuration leaves a key out.
struct LatentDefaults {
  double rope_theta = 10000;
  float routed_scaling_factor = 1;
  // Whether mlx_lm takes rms_norm_eps for the norms of the low-rank vectors too; transformers takes
  // 1e-6 in all families.
  bool mlx_latent_eps_is_config = false;
};

// The mixer of every layer, its cache, positions and scale; norms and activation.
Status read_latent_attention(const Json& json, const std::string& label,
                             const LatentDefaults& defaults, ModelConfig& out);
// DeepSeek V3's router: sigmoids with a correction bias, groups of experts, a factor; and the
// shared experts.
Status read_corrected_router(const Json& json, const std::string& label,
                             const LatentDefaults& defaults, ModelConfig& out);
// The groups of experts that a router chooses among first, best many of a group's scores counting.
Status read_expert_groups(const Json& json, const std::string& label, uint32_t best,
                          ModelConfig& out);

}  // namespace sluice::model
