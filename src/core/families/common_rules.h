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

// Norms over all heads of q, and over all of k.
inline constexpr ModuleRule kQRowNorm = {
    .path = "model.layers.{L}.self_attn.q_norm", .role = Role::kNorm, .shape = {Dim::kQRows}};
inline constexpr ModuleRule kKRowNorm = {
    .path = "model.layers.{L}.self_attn.k_norm", .role = Role::kNorm, .shape = {Dim::kKvRows}};

// A matrix, or a vector of a norm, under the source's own name.
constexpr ModuleRule linear(std::string_view path, Role role, Dim rows, Dim columns,
                            When when = When::kAlways) {
  return {.path = path, .role = role, .shape = {rows, columns}, .quantizable = true, .when = when};
}
constexpr ModuleRule norm(std::string_view path, Dim size, When when = When::kAlways) {
  return {.path = path, .role = Role::kNorm, .shape = {size}, .when = when};
}

// Parts of a table one after another.
template <size_t... N>
constexpr auto joined(const std::array<ModuleRule, N>&... parts) {
  std::array<ModuleRule, (N + ...)> all{};
  size_t next = 0;
  const auto append = [&](const auto& part) {
    for (const ModuleRule& rule : part) all[next++] = rule;
  };
  (append(parts), ...);
  return all;
}

// The same module, in some models or layers only.
constexpr ModuleRule only(When when, ModuleRule rule) {
  rule.when = when;
  return rule;
}

// The same module, which mlx_lm gives that width in every uniform conversion.
constexpr ModuleRule uniform_bits(int bits, ModuleRule rule) {
  rule.uniform_bits = bits;
  return rule;
}

// The bias of a linear module, or of a norm: one element per row, its rows in the weight's order.
constexpr ModuleRule bias_of(const ModuleRule& weight, std::string_view gguf = "",
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
// Experts that may come as halves of one tensor there as well.
constexpr ModuleRule in_gguf(ModuleRule rule, std::string_view gguf, Part half) {
  rule.gguf = gguf;
  rule.gguf_other = {"blk.{L}.ffn_gate_up_exps.weight", half};
  return rule;
}

// Routers whose width a uniform conversion of mlx_lm never goes below.
constexpr int kRouterBitsFloor = 8;
constexpr ModuleRule router(std::string_view path, When when, int bits_floor) {
  return {.path = path,
          .role = Role::kRouter,
          .shape = {Dim::kExperts, Dim::kHidden},
          .quantizable = true,
          .bits_floor = bits_floor,
          .when = when};
}

// Experts under mlp: one by one, fused by transformers 5 (gate rows before up rows), or stacked.
inline constexpr ModuleRule kMlpExpertGate =
    in_gguf(stacked_experts("model.layers.{L}.mlp.switch_mlp.gate_proj", Role::kExpertGate,
                            When::kSparseMlp,
                            {{{"model.layers.{L}.mlp.experts.{E}.gate_proj.weight"},
                              {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kFirstHalf},
                              {"model.layers.{L}.mlp.switch_mlp.gate_proj.weight"}}}),
            "blk.{L}.ffn_gate_exps.weight", Part::kFirstHalf);
inline constexpr ModuleRule kMlpExpertUp = in_gguf(
    stacked_experts("model.layers.{L}.mlp.switch_mlp.up_proj", Role::kExpertUp, When::kSparseMlp,
                    {{{"model.layers.{L}.mlp.experts.{E}.up_proj.weight"},
                      {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kSecondHalf},
                      {"model.layers.{L}.mlp.switch_mlp.up_proj.weight"}}}),
    "blk.{L}.ffn_up_exps.weight", Part::kSecondHalf);
inline constexpr ModuleRule kMlpExpertDown =
    in_gguf(stacked_experts("model.layers.{L}.mlp.switch_mlp.down_proj", Role::kExpertDown,
                            When::kSparseMlp,
                            {{{"model.layers.{L}.mlp.experts.{E}.down_proj.weight"},
                              {"model.layers.{L}.mlp.experts.down_proj"},
                              {"model.layers.{L}.mlp.switch_mlp.down_proj.weight"}}}),
            "blk.{L}.ffn_down_exps.weight");

// Experts under block_sparse_moe, in every layer: w1 is gate, w3 up and w2 down.
inline constexpr ModuleRule kBlockExpertGate =
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj",
                            Role::kExpertGate, When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w1.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj.weight"}}}),
            "blk.{L}.ffn_gate_exps.weight");
inline constexpr ModuleRule kBlockExpertUp =
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.up_proj", Role::kExpertUp,
                            When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w3.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.up_proj.weight"}}}),
            "blk.{L}.ffn_up_exps.weight");
inline constexpr ModuleRule kBlockExpertDown =
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.down_proj",
                            Role::kExpertDown, When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w2.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.down_proj.weight"}}}),
            "blk.{L}.ffn_down_exps.weight");

// DeepSeek's float router, a raw parameter in mlx_lm, which quantizes Linears only, with the bias
// that takes part in its choice; and the experts of every token.
inline constexpr ModuleRule kFloatRouter = {.path = "model.layers.{L}.mlp.gate",
                                            .role = Role::kRouter,
                                            .shape = {Dim::kExperts, Dim::kHidden},
                                            .when = When::kSparseMlp};
inline constexpr ModuleRule kRouterCorrection = {.path = "model.layers.{L}.mlp.gate",
                                                 .parameter = "e_score_correction_bias",
                                                 .role = Role::kBias,
                                                 .shape = {Dim::kExperts},
                                                 .when = When::kSparseMlp,
                                                 .keep_dtype = true};
inline constexpr ModuleRule kSharedGateProj =
    linear("model.layers.{L}.mlp.shared_experts.gate_proj", Role::kMlpGate,
           Dim::kSharedIntermediate, Dim::kHidden, When::kSharedExperts);
inline constexpr ModuleRule kSharedUpProj =
    linear("model.layers.{L}.mlp.shared_experts.up_proj", Role::kMlpUp, Dim::kSharedIntermediate,
           Dim::kHidden, When::kSharedExperts);
inline constexpr ModuleRule kSharedDownProj =
    linear("model.layers.{L}.mlp.shared_experts.down_proj", Role::kMlpDown, Dim::kHidden,
           Dim::kSharedIntermediate, When::kSharedExperts);

// A projection whose rows llama.cpp interleaves within each head.
constexpr ModuleRule interleaved(ModuleRule rule) {
  rule.gguf_order = RowOrder::kUninterleaveHeads;
  return rule;
}

// The language model of a model of several parts: as transformers 5 names it, and as it named it
// before and mlx_lm does.
inline constexpr NamePrefix kTextPrefixes[] = {{"model.language_model.", "model."},
                                               {"language_model.", ""}};
inline constexpr std::string_view kTextOutputPrefix = "language_model.";

inline constexpr ModuleRule kBefore[] = {kEmbedTokens};
inline constexpr ModuleRule kAfter[] = {kFinalNorm, kLmHead};
inline constexpr std::string_view kRotaryBuffers[] = {
    "model.layers.{L}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"};

}  // namespace sluice::families::common
