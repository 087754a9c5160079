// The modules that decoder families share, under transformers' and llama.cpp's names. A family's
// table is made of these, changed where it differs, and of its own.
#pragma once

#include "families/family.h"

namespace sluice::families::common {

inline constexpr ModuleRule kEmbedTokens = {.path = "model.embed_tokens",
                                            .role = Role::kEmbedding,
                                            .shape = {Dim::kVocab, Dim::kHidden},
                                            .quantizable = true,
                                            .gguf = "token_embd.weight"};
inline constexpr ModuleRule kFinalNorm = {.path = "model.norm",
                                          .role = Role::kNorm,
                                          .shape = {Dim::kHidden},
                                          .gguf = "output_norm.weight"};
inline constexpr ModuleRule kLmHead = {.path = "lm_head",
                                       .role = Role::kHead,
                                       .shape = {Dim::kVocab, Dim::kHidden},
                                       .quantizable = true,
                                       .when = When::kUntied,
                                       .gguf = "output.weight"};

inline constexpr ModuleRule kQProj = {.path = "model.layers.{L}.self_attn.q_proj",
                                      .role = Role::kAttentionQ,
                                      .shape = {Dim::kQRows, Dim::kHidden},
                                      .quantizable = true,
                                      .gguf = "blk.{L}.attn_q.weight"};
inline constexpr ModuleRule kKProj = {.path = "model.layers.{L}.self_attn.k_proj",
                                      .role = Role::kAttentionK,
                                      .shape = {Dim::kKvRows, Dim::kHidden},
                                      .quantizable = true,
                                      .gguf = "blk.{L}.attn_k.weight"};
inline constexpr ModuleRule kVProj = {.path = "model.layers.{L}.self_attn.v_proj",
                                      .role = Role::kAttentionV,
                                      .shape = {Dim::kKvRows, Dim::kHidden},
                                      .quantizable = true,
                                      .gguf = "blk.{L}.attn_v.weight"};
inline constexpr ModuleRule kOProj = {.path = "model.layers.{L}.self_attn.o_proj",
                                      .role = Role::kAttentionO,
                                      .shape = {Dim::kHidden, Dim::kQRows},
                                      .quantizable = true,
                                      .gguf = "blk.{L}.attn_output.weight"};
inline constexpr ModuleRule kQNorm = {.path = "model.layers.{L}.self_attn.q_norm",
                                      .role = Role::kNorm,
                                      .shape = {Dim::kHeadDim},
                                      .gguf = "blk.{L}.attn_q_norm.weight"};
inline constexpr ModuleRule kKNorm = {.path = "model.layers.{L}.self_attn.k_norm",
                                      .role = Role::kNorm,
                                      .shape = {Dim::kHeadDim},
                                      .gguf = "blk.{L}.attn_k_norm.weight"};

inline constexpr ModuleRule kGateProj = {.path = "model.layers.{L}.mlp.gate_proj",
                                         .role = Role::kMlpGate,
                                         .shape = {Dim::kIntermediate, Dim::kHidden},
                                         .quantizable = true,
                                         .gguf = "blk.{L}.ffn_gate.weight"};
inline constexpr ModuleRule kDownProj = {.path = "model.layers.{L}.mlp.down_proj",
                                         .role = Role::kMlpDown,
                                         .shape = {Dim::kHidden, Dim::kIntermediate},
                                         .quantizable = true,
                                         .gguf = "blk.{L}.ffn_down.weight"};
inline constexpr ModuleRule kUpProj = {.path = "model.layers.{L}.mlp.up_proj",
                                       .role = Role::kMlpUp,
                                       .shape = {Dim::kIntermediate, Dim::kHidden},
                                       .quantizable = true,
                                       .gguf = "blk.{L}.ffn_up.weight"};

inline constexpr ModuleRule kInputNorm = {.path = "model.layers.{L}.input_layernorm",
                                          .role = Role::kNorm,
                                          .shape = {Dim::kHidden},
                                          .gguf = "blk.{L}.attn_norm.weight"};
inline constexpr ModuleRule kPostAttentionNorm = {
    .path = "model.layers.{L}.post_attention_layernorm",
    .role = Role::kNorm,
    .shape = {Dim::kHidden},
    .gguf = "blk.{L}.ffn_norm.weight"};

// The same module, in some models or layers only.
constexpr ModuleRule only(When when, ModuleRule rule) {
  rule.when = when;
  return rule;
}

// The bias of a linear module: one element per row, its rows in the weight's order.
constexpr ModuleRule bias_of(const ModuleRule& weight, std::string_view gguf,
                             When when = When::kAlways) {
  return {.path = weight.path,
          .parameter = "bias",
          .role = Role::kBias,
          .shape = {weight.shape[0]},
          .when = when,
          .gguf = gguf,
          .gguf_order = weight.gguf_order};
}

// One matrix of all experts of a layer, stacked: a tensor each in the source, stacked there already
// under the module's own name, or a part of a fused one.
constexpr ModuleRule stacked_experts(std::string_view path, Role role, When when,
                                     std::array<SourceRule, 3> sources) {
  const bool down = role == Role::kExpertDown;
  return {.path = path,
          .role = role,
          .shape = {Dim::kExperts, down ? Dim::kHidden : Dim::kExpertIntermediate,
                    down ? Dim::kExpertIntermediate : Dim::kHidden},
          .quantizable = true,
          .when = when,
          .sources = sources};
}

// The same module, which llama.cpp has under a name of its own.
constexpr ModuleRule in_gguf(ModuleRule rule, std::string_view gguf) {
  rule.gguf = gguf;
  return rule;
}

// A projection whose rows llama.cpp interleaves within each head.
constexpr ModuleRule interleaved(ModuleRule rule) {
  rule.gguf_order = RowOrder::kUninterleaveHeads;
  return rule;
}

inline constexpr ModuleRule kBefore[] = {kEmbedTokens};
inline constexpr ModuleRule kAfter[] = {kFinalNorm, kLmHead};
inline constexpr std::string_view kRotaryBuffers[] = {
    "model.layers.{L}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"};

}  // namespace sluice::families::common
