// The modules of models with latent attention and experts as DeepSeek V2 and V3 have them. Keys and
// values come from one short vector per token; kv_b_proj, which makes a head's key and value of it,
// is stored by some families as it is and by others split by head into embed_q (transposed) and
// unembed_out. A family's table is these pieces joined in mlx_lm's module order.
#pragma once

#include "families/common_rules.h"

namespace sluice::families::latent {

using namespace common;

inline constexpr ModuleRule kQA = linear("model.layers.{L}.self_attn.q_a_proj", Role::kAttentionQ,
                                         Dim::kQLoraRank, Dim::kHidden, When::kQLora);
inline constexpr ModuleRule kKvA = linear("model.layers.{L}.self_attn.kv_a_proj_with_mqa",
                                          Role::kAttentionK, Dim::kKvARows, Dim::kHidden);
inline constexpr ModuleRule kO = linear("model.layers.{L}.self_attn.o_proj", Role::kAttentionO,
                                        Dim::kHidden, Dim::kValueColumns);

// Queries, and the short vector of keys and values.
inline constexpr auto kQueriesAndLatent = std::to_array<ModuleRule>({
    linear("model.layers.{L}.self_attn.q_proj", Role::kAttentionQ, Dim::kMlaQRows, Dim::kHidden,
           When::kFullQ),
    kQA,
    bias_of(kQA, "", When::kQLoraBias),
    norm("model.layers.{L}.self_attn.q_a_layernorm", Dim::kQLoraRank, When::kQLora),
    linear("model.layers.{L}.self_attn.q_b_proj", Role::kAttentionQ, Dim::kMlaQRows,
           Dim::kQLoraRank, When::kQLora),
    kKvA,
    bias_of(kKvA, "", When::kAttentionBias),
    norm("model.layers.{L}.self_attn.kv_a_layernorm", Dim::kKvLoraRank),
});

inline constexpr auto kSplitKvB = std::to_array<ModuleRule>({
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
    kFloatRouter,
});

inline constexpr auto kCorrection = std::to_array<ModuleRule>({kRouterCorrection});

inline constexpr auto kSharedAndNorms = std::to_array<ModuleRule>({
    kSharedGateProj,
    kSharedUpProj,
    kSharedDownProj,
    kInputNorm,
    kPostAttentionNorm,
});

// The pieces one after another.
template <size_t... N>
constexpr auto joined(const std::array<ModuleRule, N>&... pieces) {
  std::array<ModuleRule, (N + ...)> all{};
  size_t at = 0;
  const auto append = [&](const auto& piece) {
    for (const ModuleRule& rule : piece) all[at++] = rule;
  };
  (append(pieces), ...);
  return all;
}

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
