// Mixtral: Llama's attention, and in every layer a router and experts, whose matrices are w1
// (gate), w3 (up) and w2 (down).
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

// llama.cpp's architecture llama with experts: rows of q and k interleaved as there.
constexpr ModuleRule kLayer[] = {
    interleaved(kQProj),
    interleaved(kKProj),
    kVProj,
    kOProj,
    kInputNorm,
    kPostAttentionNorm,
    {.path = "model.layers.{L}.block_sparse_moe.gate",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .quantizable = true,
     .gguf = "blk.{L}.ffn_gate_inp.weight"},
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj",
                            Role::kExpertGate, When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w1.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj.weight"}}}),
            "blk.{L}.ffn_gate_exps.weight"),
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.up_proj", Role::kExpertUp,
                            When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w3.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.up_proj.weight"}}}),
            "blk.{L}.ffn_up_exps.weight"),
    in_gguf(stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.down_proj",
                            Role::kExpertDown, When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w2.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.down_proj.weight"}}}),
            "blk.{L}.ffn_down_exps.weight"),
};

}  // namespace

constinit const Family kMixtral = {.name = "mixtral",
                                   .head_dim = HeadDim::kFromHidden,
                                   .before = kBefore,
                                   .layer = kLayer,
                                   .after = kAfter,
                                   .dropped = kRotaryBuffers,
                                   .experts = ExpertKeys::kMixtral};

}  // namespace sluice::families
