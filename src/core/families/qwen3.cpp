// Qwen3, dense: no biases, an explicit head_dim, and an RMS norm on each head of q and k.
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
     .gguf = "blk.{L}.attn_q.weight"},
    {.path = "model.layers.{L}.self_attn.k_proj",
     .role = Role::kAttentionK,
     .shape = {Dim::kKvRows, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.attn_k.weight"},
    {.path = "model.layers.{L}.self_attn.v_proj",
     .role = Role::kAttentionV,
     .shape = {Dim::kKvRows, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.attn_v.weight"},
    {.path = "model.layers.{L}.self_attn.o_proj",
     .role = Role::kAttentionO,
     .shape = {Dim::kHidden, Dim::kQRows},
     .quantizable = true,
     .gguf = "blk.{L}.attn_output.weight"},
    {.path = "model.layers.{L}.self_attn.q_norm",
     .role = Role::kNorm,
     .shape = {Dim::kHeadDim},
     .gguf = "blk.{L}.attn_q_norm.weight"},
    {.path = "model.layers.{L}.self_attn.k_norm",
     .role = Role::kNorm,
     .shape = {Dim::kHeadDim},
     .gguf = "blk.{L}.attn_k_norm.weight"},
    {.path = "model.layers.{L}.mlp.gate_proj",
     .role = Role::kMlpGate,
     .shape = {Dim::kIntermediate, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_gate.weight"},
    {.path = "model.layers.{L}.mlp.down_proj",
     .role = Role::kMlpDown,
     .shape = {Dim::kHidden, Dim::kIntermediate},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_down.weight"},
    {.path = "model.layers.{L}.mlp.up_proj",
     .role = Role::kMlpUp,
     .shape = {Dim::kIntermediate, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_up.weight"},
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

}  // namespace

constinit const Family kQwen3 = {.name = "qwen3",
                                 .head_dim = HeadDim::kRequired,
                                 .before = kBefore,
                                 .layer = kLayer,
                                 .after = kAfter,
                                 .dropped = kDropped};

}  // namespace sluice::families
