// DeepSeek V3 and R1, and Kimi K2 and GLM-4.7-Flash under the same layout: latent attention, a
// float router with a correction bias, stacked and shared experts. Source: sanitize() of mlx_lm
// 0.32's deepseek_v3 and glm4_moe_lite, which split kv_b_proj into embed_q and unembed_out and drop
// the layers for multi-token prediction; here those are all layers from num_hidden_layers on.
#include "families/latent_rules.h"

namespace sluice::families {

constinit const Family kDeepseekV3 = latent::family("deepseek_v3", latent::kCorrectedLayer);
constinit const Family kKimiK2 = latent::family("kimi_k2", latent::kCorrectedLayer);
constinit const Family kGlm4MoeLite = latent::family("glm4_moe_lite", latent::kCorrectedLayer);

}  // namespace sluice::families
