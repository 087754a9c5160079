// The modules of models with latent attention and experts as DeepSeek V2 and V3 have them. Keys and
// values come from one short vector per token; kv_b_proj, which makes a head's key and value of it,
// is stored by some families as it is and by others split by head into embed_q (transposed) and
// unembed_out. A family's table is these pieces joined in mlx_lm's module order.
#pragma once

#include "families/common_rules.h"

namespace sluice::families::latent {

using namespace common;

inline constexpr ModuleRule kQA =
    in_gguf(linear("model.layers.{L}.self_attn.q_a_proj", Role::kAttentionQ, Dim::kQLoraRank,
                   Dim::kHidden, When::kQLora),
            "blk.{L}.attn_q_a.weight");
inline constexpr ModuleRule kKvA = in_gguf(linear("model.layers.{L}.self_attn.kv_a_proj_with_mqa",
                                                  Role::kAttentionK, Dim::kKvARows, Dim::kHidden),
                                           "blk.{L}.attn_kv_a_mqa.weight");
inline constexpr ModuleRule kO =
    in_gguf(linear("model.layers.{L}.self_attn.o_proj", Role::kAttentionO, Dim::kHidden,
                   Dim::kValueColumns),
            "blk.{L}.attn_output.weight");

// Queries, and the short vector of keys and values.
inline constexpr auto kQueriesAndLatent = std::to_array<ModuleRule>({
    in_gguf(linear("model.layers.{L}.self_attn.q_proj", Role::kAttentionQ, Dim::kMlaQRows,
                   Dim::kHidden, When::kFullQ),
            "blk.{L}.attn_q.weight"),
    kQA,
    bias_of(kQA, "", When::kQLoraBias),
    in_gguf(norm("model.layers.{L}.self_attn.q_a_layernorm", Dim::kQLoraRank, When::kQLora),
            "blk.{L}.attn_q_a_norm.weight"),
    in_gguf(linear("model.layers.{L}.self_attn.q_b_proj", Role::kAttentionQ, Dim::kMlaQRows,
                   Dim::kQLoraRank, When::kQLora),
            "blk.{L}.attn_q_b.weight"),
    kKvA,
    bias_of(kKvA, "", When::kAttentionBias),
    in_gguf(norm("model.layers.{L}.self_attn.kv_a_layernorm", Dim::kKvLoraRank),
            "blk.{L}.attn_kv_a_norm.weight"),
});

inline constexpr auto kSplitKvB = std::to_array<ModuleRule>({
    {.path = "model.layers.{L}.self_attn.embed_q",
     .role = Role::kAttentionK,
     .shape = {Dim::kHeads, Dim::kKvLoraRank, Dim::kQkNopeHeadDim},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.self_attn.kv_b_proj.weight", Part::kHeadKeys},
                  {"model.layers.{L}.self_attn.embed_q.weight"}}},
     .gguf = "blk.{L}.attn_k_b.weight"},
    {.path = "model.layers.{L}.self_attn.unembed_out",
     .role = Role::kAttentionV,
     .shape = {Dim::kHeads, Dim::kVHeadDim, Dim::kKvLoraRank},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.self_attn.kv_b_proj.weight", Part::kHeadValues},
                  {"model.layers.{L}.self_attn.unembed_out.weight"}}},
     .gguf = "blk.{L}.attn_v_b.weight"},
});

inline constexpr auto kWholeKvB = std::to_array<ModuleRule>({
    linear("model.layers.{L}.self_attn.kv_b_proj", Role::kAttentionK, Dim::kKvBRows,
           Dim::kKvLoraRank),
});

inline constexpr auto kOutput = std::to_array<ModuleRule>({
    kO,
    bias_of(kO, "", When::kAttentionBias),
});

// Dense layers, and the experts of the others with their router.
inline constexpr auto kExperts = std::to_array<ModuleRule>({
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kUpProj),
    only(When::kDenseMlp, kDownProj),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    in_gguf(kFloatRouter, "blk.{L}.ffn_gate_inp.weight"),
});

inline constexpr auto kCorrection =
    std::to_array<ModuleRule>({in_gguf(kRouterCorrection, "blk.{L}.exp_probs_b.bias")});

inline constexpr auto kSharedAndNorms = std::to_array<ModuleRule>({
    in_gguf(kSharedGateProj, "blk.{L}.ffn_gate_shexp.weight"),
    in_gguf(kSharedUpProj, "blk.{L}.ffn_up_shexp.weight"),
    in_gguf(kSharedDownProj, "blk.{L}.ffn_down_shexp.weight"),
    kInputNorm,
    kPostAttentionNorm,
});

// DeepSeek V3's, which several families share.
inline constexpr auto kCorrectedLayer =
    joined(kQueriesAndLatent, kSplitKvB, kOutput, kExperts, kCorrection, kSharedAndNorms);

constexpr Family family(std::string_view name, std::span<const ModuleRule> layer) {
  return {.name = name,
          .head_dim = HeadDim::kLatent,
          .before = kBefore,
          .layer = layer,
          .after = kAfter,
          .dropped = kRotaryBuffers,
          .experts = ExpertKeys::kDeepseek,
          .extra_layers_dropped = true,
          .head_required = true};
}

}  // namespace sluice::families::latent
