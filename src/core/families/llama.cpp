// Llama 2, 3 and 3.x, SmolLM2 and others of model_type llama; Mistral 7B and its successors, which
// mlx_lm runs with the same code. llama.cpp interleaves the rows of q and k within each head.
#include "families/family.h"

namespace sluice::families {
namespace {

constexpr ModuleRule kBefore[] = {
    {.path = "model.embed_tokens",
     .role = Role::kEmbedding,
     .shape = {Dim::kVocab, Dim::kHidden},
     .quantizable = true,
     .gguf = "token_embd.weight"},
};

constexpr ModuleRule kLayer[] = {
    {.path = "model.layers.{L}.self_attn.q_proj",
     .role = Role::kAttentionQ,
     .shape = {Dim::kQRows, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.attn_q.weight",
     .gguf_order = RowOrder::kUninterleaveHeads},
    {.path = "model.layers.{L}.self_attn.q_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kQRows},
     .when = When::kAttentionBias,
     .gguf = "blk.{L}.attn_q.bias",
     .gguf_order = RowOrder::kUninterleaveHeads},
    {.path = "model.layers.{L}.self_attn.k_proj",
     .role = Role::kAttentionK,
     .shape = {Dim::kKvRows, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.attn_k.weight",
     .gguf_order = RowOrder::kUninterleaveHeads},
    {.path = "model.layers.{L}.self_attn.k_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kKvRows},
     .when = When::kAttentionBias,
     .gguf = "blk.{L}.attn_k.bias",
     .gguf_order = RowOrder::kUninterleaveHeads},
    {.path = "model.layers.{L}.self_attn.v_proj",
     .role = Role::kAttentionV,
     .shape = {Dim::kKvRows, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.attn_v.weight"},
    {.path = "model.layers.{L}.self_attn.v_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kKvRows},
     .when = When::kAttentionBias,
     .gguf = "blk.{L}.attn_v.bias"},
    {.path = "model.layers.{L}.self_attn.o_proj",
     .role = Role::kAttentionO,
     .shape = {Dim::kHidden, Dim::kQRows},
     .quantizable = true,
     .gguf = "blk.{L}.attn_output.weight"},
    {.path = "model.layers.{L}.self_attn.o_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kHidden},
     .when = When::kAttentionBias,
     .gguf = "blk.{L}.attn_output.bias"},
    {.path = "model.layers.{L}.mlp.gate_proj",
     .role = Role::kMlpGate,
     .shape = {Dim::kIntermediate, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_gate.weight"},
    {.path = "model.layers.{L}.mlp.gate_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kIntermediate},
     .when = When::kMlpBias,
     .gguf = "blk.{L}.ffn_gate.bias"},
    {.path = "model.layers.{L}.mlp.down_proj",
     .role = Role::kMlpDown,
     .shape = {Dim::kHidden, Dim::kIntermediate},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_down.weight"},
    {.path = "model.layers.{L}.mlp.down_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kHidden},
     .when = When::kMlpBias,
     .gguf = "blk.{L}.ffn_down.bias"},
    {.path = "model.layers.{L}.mlp.up_proj",
     .role = Role::kMlpUp,
     .shape = {Dim::kIntermediate, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_up.weight"},
    {.path = "model.layers.{L}.mlp.up_proj",
     .parameter = "bias",
     .role = Role::kBias,
     .shape = {Dim::kIntermediate},
     .when = When::kMlpBias,
     .gguf = "blk.{L}.ffn_up.bias"},
    {.path = "model.layers.{L}.input_layernorm",
     .role = Role::kNorm,
     .shape = {Dim::kHidden},
     .gguf = "blk.{L}.attn_norm.weight"},
    {.path = "model.layers.{L}.post_attention_layernorm",
     .role = Role::kNorm,
     .shape = {Dim::kHidden},
     .gguf = "blk.{L}.ffn_norm.weight"},
};

constexpr ModuleRule kAfter[] = {
    {.path = "model.norm",
     .role = Role::kNorm,
     .shape = {Dim::kHidden},
     .gguf = "output_norm.weight"},
    {.path = "lm_head",
     .role = Role::kHead,
     .shape = {Dim::kVocab, Dim::kHidden},
     .quantizable = true,
     .when = When::kUntied,
     .gguf = "output.weight"},
};

constexpr std::string_view kDropped[] = {"model.layers.{L}.self_attn.rotary_emb.inv_freq",
                                         "model.rotary_emb.inv_freq"};
// The llama3 rope factors, which the configuration's rope_scaling describes as well.
constexpr std::string_view kGgufDropped[] = {"rope_freqs.weight"};

constexpr Family family(std::string_view name) {
  return {.name = name,
          .head_dim = HeadDim::kOptional,
          .before = kBefore,
          .layer = kLayer,
          .after = kAfter,
          .dropped = kDropped,
          .gguf_dropped = kGgufDropped};
}

}  // namespace

constinit const Family kLlama = family("llama");
constinit const Family kMistral = family("mistral");

}  // namespace sluice::families
