// DeepSeek V2, V2-Lite and Coder V2: latent attention whose kv_b_proj stays whole, and a float
// router without a correction bias. Source: mlx_lm 0.32's deepseek_v2, which stacks the experts
// and changes nothing else.
#include "families/latent_rules.h"

namespace sluice::families {
namespace {

constexpr auto kLayer = latent::joined(latent::kQueriesAndLatent, latent::kWholeKvB,
                                       latent::kOutput, latent::kExperts, latent::kSharedAndNorms);

}  // namespace

constinit const Family kDeepseekV2 = latent::family("deepseek_v2", kLayer);

}  // namespace sluice::families
