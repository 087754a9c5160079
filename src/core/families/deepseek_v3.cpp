// DeepSeek V3 and R1, and Kimi K2 under the same layout: latent attention, a float router with a
// correction bias, stacked and shared experts. Source: sanitize() of mlx_lm 0.32's deepseek_v3,
// which splits kv_b_proj into embed_q and unembed_out and drops the layer for multi-token
// prediction; here that is every layer from num_hidden_layers on.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule linear(std::string_view path, Role role, Dim rows, Dim columns,
                            When when = When::kAlways) {
  return {.path = path, .role = role, .shape = {rows, columns}, .quantizable = true, .when = when};
}

constexpr ModuleRule norm(std::string_view path, Dim size, When when = When::kAlways) {
  return {.path = path, .role = Role::kNorm, .shape = {size}, .when = when};
}

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
    stacked_experts("model.layers.{L}.mlp.switch_mlp.gate_proj", Role::kExpertGate,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.mlp.experts.{E}.gate_proj.weight"},
                      {"model.layers.{L}.mlp.switch_mlp.gate_proj.weight"}}}),
    stacked_experts("model.layers.{L}.mlp.switch_mlp.up_proj", Role::kExpertUp, When::kSparseMlp,
                    {{{"model.layers.{L}.mlp.experts.{E}.up_proj.weight"},
                      {"model.layers.{L}.mlp.switch_mlp.up_proj.weight"}}}),
    stacked_experts("model.layers.{L}.mlp.switch_mlp.down_proj", Role::kExpertDown,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.mlp.experts.{E}.down_proj.weight"},
                      {"model.layers.{L}.mlp.switch_mlp.down_proj.weight"}}}),
    // A raw parameter in mlx_lm, which quantizes Linears only.
    {.path = "model.layers.{L}.mlp.gate",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .when = When::kSparseMlp},
    {.path = "model.layers.{L}.mlp.gate",
     .parameter = "e_score_correction_bias",
     .role = Role::kBias,
     .shape = {Dim::kExperts},
     .when = When::kSparseMlp,
     .keep_dtype = true},
    linear("model.layers.{L}.mlp.shared_experts.gate_proj", Role::kMlpGate,
           Dim::kSharedIntermediate, Dim::kHidden, When::kSharedExperts),
    linear("model.layers.{L}.mlp.shared_experts.up_proj", Role::kMlpUp, Dim::kSharedIntermediate,
           Dim::kHidden, When::kSharedExperts),
    linear("model.layers.{L}.mlp.shared_experts.down_proj", Role::kMlpDown, Dim::kHidden,
           Dim::kSharedIntermediate, When::kSharedExperts),
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
