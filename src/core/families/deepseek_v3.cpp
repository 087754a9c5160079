// DeepSeek V3 and R1, and Kimi K2 under the same layout: latent attention, a float router with a
// correction bias, stacked and shared experts. Source: sanitize() of mlx_lm 0.32's deepseek_v3,
// which splits kv_b_proj into embed_q and unembed_out and drops the layer for multi-token
// prediction; here that is every layer from num_hidden_layers on.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule biased(const ModuleRule& weight, When when) {
  return bias_of(weight, "", when);
}

constexpr ModuleRule kQA = linear("model.layers.{L}.self_attn.q_a_proj", Role::kAttentionQ,
                                  Dim::kQLoraRank, Dim::kHidden, When::kQLora);
constexpr ModuleRule kKvA = linear("model.layers.{L}.self_attn.kv_a_proj_with_mqa",
                                   Role::kAttentionK, Dim::kKvARows, Dim::kHidden);
constexpr ModuleRule kO = linear("model.layers.{L}.self_attn.o_proj", Role::kAttentionO,
                                 Dim::kHidden, Dim::kValueColumns);

constexpr ModuleRule kLayer[] = {
    linear("model.layers.{L}.self_attn.q_proj", Role::kAttentionQ, Dim::kMlaQRows, Dim::kHidden,
           When::kFullQ),
    kQA,
    biased(kQA, When::kQLoraBias),
    norm("model.layers.{L}.self_attn.q_a_layernorm", Dim::kQLoraRank, When::kQLora),
    linear("model.layers.{L}.self_attn.q_b_proj", Role::kAttentionQ, Dim::kMlaQRows,
           Dim::kQLoraRank, When::kQLora),
    kKvA,
    biased(kKvA, When::kAttentionBias),
    norm("model.layers.{L}.self_attn.kv_a_layernorm", Dim::kKvLoraRank),
    {.path = "model.layers.{L}.self_attn.embed_q",
     .role = Role::kAttentionK,
     .shape = {Dim::kHeads, Dim::kKvLoraRank, Dim::kQkNopeHeadDim},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.self_attn.kv_b_proj.weight", Part::kHeadKeys},
                  {"model.layers.{L}.self_attn.embed_q.weight"}}}},
    {.path = "model.layers.{L}.self_attn.unembed_out",
     .role = Role::kAttentionV,
     .shape = {Dim::kHeads, Dim::kVHeadDim, Dim::kKvLoraRank},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.self_attn.kv_b_proj.weight", Part::kHeadValues},
                  {"model.layers.{L}.self_attn.unembed_out.weight"}}}},
    kO,
    biased(kO, When::kAttentionBias),
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kUpProj),
    only(When::kDenseMlp, kDownProj),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    kFloatRouter,
    kRouterCorrection,
    kSharedGateProj,
    kSharedUpProj,
    kSharedDownProj,
    kInputNorm,
    kPostAttentionNorm,
};

constexpr Family family(std::string_view name) {
  return {.name = name,
          .head_dim = HeadDim::kLatent,
          .before = kBefore,
          .layer = kLayer,
          .after = kAfter,
          .dropped = kRotaryBuffers,
          .experts = ExpertKeys::kDeepseek,
          .extra_layers_dropped = true,
          .head_required = true};
}

}  // namespace

constinit const Family kDeepseekV3 = family("deepseek_v3");
constinit const Family kKimiK2 = family("kimi_k2");

}  // namespace sluice::families
