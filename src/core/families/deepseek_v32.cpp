// DeepSeek V3.2 and GLM-5: DeepSeek V3's layout, and in each layer an indexer that chooses the
// tokens that attention looks at. Source: mlx_lm 0.32's deepseek_v32 and glm_moe_dsa.
#include "families/latent_rules.h"

namespace sluice::families {
namespace {

using namespace latent;

constexpr ModuleRule kIndexNorm =
    norm("model.layers.{L}.self_attn.indexer.k_norm", Dim::kIndexHeadDim);
constexpr auto kIndexer = std::to_array<ModuleRule>({
    linear("model.layers.{L}.self_attn.indexer.wq_b", Role::kAttentionQ, Dim::kIndexQRows,
           Dim::kQLoraRank),
    linear("model.layers.{L}.self_attn.indexer.wk", Role::kAttentionK, Dim::kIndexHeadDim,
           Dim::kHidden),
    kIndexNorm,
    bias_of(kIndexNorm, ""),
    linear("model.layers.{L}.self_attn.indexer.weights_proj", Role::kOther, Dim::kIndexHeads,
           Dim::kHidden),
});

constexpr auto kLayer = joined(kQueriesAndLatent, kSplitKvB, kOutput, kIndexer, latent::kExperts,
                               kCorrection, kSharedAndNorms);

constexpr Family indexed(std::string_view name) {
  Family result = family(name, kLayer);
  result.has_indexer = true;
  return result;
}

}  // namespace

constinit const Family kDeepseekV32 = indexed("deepseek_v32");
constinit const Family kGlmMoeDsa = indexed("glm_moe_dsa");

}  // namespace sluice::families
