// What the hybrids of gated softmax attention and Gated DeltaNet have in common (qwen3_next,
// qwen3_5): both kinds of layers, norms that multiply by 1 + w where transformers wrote them, a
// shared expert.
#pragma once

#include "families/common_rules.h"

namespace sluice::families::common {

// Loaders bake the one in when they convert.
constexpr ModuleRule zero_centred(ModuleRule rule) {
  rule.add_one = true;
  return rule;
}

constexpr ModuleRule floored(ModuleRule rule) {
  rule.bits_floor = kRouterBitsFloor;
  return rule;
}

// ---- gated attention: the rows of q_proj are, head by head, queries and then their gates ----
inline constexpr ModuleRule kGatedQ =
    in_gguf(linear("model.layers.{L}.self_attn.q_proj", Role::kAttentionQ, Dim::kGatedQRows,
                   Dim::kHidden, When::kFullAttention),
            "blk.{L}.attn_q.weight");
// Behind attention, under the name that it has there in Hugging Face's files.
inline constexpr ModuleRule kHybridPostAttentionNorm =
    zero_centred(in_gguf(kPostAttentionNorm, "blk.{L}.post_attention_norm.weight"));
inline constexpr ModuleRule kFullK = only(When::kFullAttention, kKProj);
inline constexpr ModuleRule kFullV = only(When::kFullAttention, kVProj);
inline constexpr ModuleRule kFullO = only(When::kFullAttention, kOProj);
inline constexpr ModuleRule kFullQNorm = zero_centred(only(When::kFullAttention, kQNorm));
inline constexpr ModuleRule kFullKNorm = zero_centred(only(When::kFullAttention, kKNorm));

constexpr ModuleRule bias_where_asked(const ModuleRule& weight) {
  return bias_of(weight, "", When::kFullAttentionBias);
}

// ---- linear attention ----
inline constexpr ModuleRule kConv1d = {
    .path = "model.layers.{L}.linear_attn.conv1d",
    .shape = {Dim::kLinearQkvRows, Dim::kLinearConvKernelDim, Dim::kOne},
    .when = When::kLinearAttention,
    .filters = true,
    .gguf = "blk.{L}.ssm_conv1d.weight"};
inline constexpr ModuleRule kDtBias = {.path = "model.layers.{L}.linear_attn",
                                       .parameter = "dt_bias",
                                       .shape = {Dim::kLinearValueHeads},
                                       .when = When::kLinearAttention,
                                       .gguf = "blk.{L}.ssm_dt.bias"};
inline constexpr ModuleRule kALog = {.path = "model.layers.{L}.linear_attn",
                                     .parameter = "A_log",
                                     .shape = {Dim::kLinearValueHeads},
                                     .when = When::kLinearAttention,
                                     .gguf = "blk.{L}.ssm_a",
                                     .gguf_step = numerics::ValueStep::kLogOfMinus};
// Multiplies by w itself, in every file.
inline constexpr ModuleRule kLinearNorm = {.path = "model.layers.{L}.linear_attn.norm",
                                           .role = Role::kNorm,
                                           .shape = {Dim::kLinearValueHeadDim},
                                           .when = When::kLinearAttention,
                                           .gguf = "blk.{L}.ssm_norm.weight"};
inline constexpr ModuleRule kLinearOut =
    in_gguf(linear("model.layers.{L}.linear_attn.out_proj", Role::kAttentionO, Dim::kHidden,
                   Dim::kLinearValueRows, When::kLinearAttention),
            "blk.{L}.ssm_out.weight");
inline constexpr ModuleRule kInQkv =
    in_gguf(linear("model.layers.{L}.linear_attn.in_proj_qkv", Role::kAttentionQ,
                   Dim::kLinearQkvRows, Dim::kHidden, When::kLinearAttention),
            "blk.{L}.attn_qkv.weight");
inline constexpr ModuleRule kInZ =
    in_gguf(linear("model.layers.{L}.linear_attn.in_proj_z", Role::kAttentionQ,
                   Dim::kLinearValueRows, Dim::kHidden, When::kLinearAttention),
            "blk.{L}.attn_gate.weight");

// A module of value heads that llama.cpp's converter has rearranged.
constexpr ModuleRule tiled(ValueHeads heads, ModuleRule rule) {
  rule.gguf_heads = heads;
  return rule;
}

// ---- experts ----
inline constexpr ModuleRule kQwenRouter =
    in_gguf(router("model.layers.{L}.mlp.gate", When::kSparseMlp, kRouterBitsFloor),
            "blk.{L}.ffn_gate_inp.weight");
inline constexpr ModuleRule kSharedGate =
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.gate_proj", Role::kMlpGate,
                   Dim::kSharedIntermediate, Dim::kHidden, When::kSharedExperts),
            "blk.{L}.ffn_gate_shexp.weight");
inline constexpr ModuleRule kSharedDown =
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.down_proj", Role::kMlpDown, Dim::kHidden,
                   Dim::kSharedIntermediate, When::kSharedExperts),
            "blk.{L}.ffn_down_shexp.weight");
inline constexpr ModuleRule kSharedUp =
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.up_proj", Role::kMlpUp,
                   Dim::kSharedIntermediate, Dim::kHidden, When::kSharedExperts),
            "blk.{L}.ffn_up_shexp.weight");
inline constexpr ModuleRule kSharedExpertGate =
    in_gguf(floored(linear("model.layers.{L}.mlp.shared_expert_gate", Role::kRouter, Dim::kOne,
                           Dim::kHidden, When::kSharedExperts)),
            "blk.{L}.ffn_gate_inp_shexp.weight");

inline constexpr ModuleRule kHybridAfter[] = {zero_centred(kFinalNorm), kLmHead};

inline constexpr OtherPart kVisionAndPrediction[] = {
    {"model.visual.", "vision part"},         {"visual.", "vision part"},
    {"vision_tower.", "vision part"},         {"mtp.", "multi-token prediction"},
    {"model.mtp.", "multi-token prediction"},
};

}  // namespace sluice::families::common
