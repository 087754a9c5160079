// Granite 3 with experts in every layer: input_linear holds the rows of gate and then those of up
// of each expert, output_linear those of down. 8 bits as in granite.cpp, which mlx_lm's rule for
// names that end in mlp.down_proj extends to the experts.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    interleaved(kQProj),
    bias_of(interleaved(kQProj), "blk.{L}.attn_q.bias", When::kAttentionBias),
    interleaved(kKProj),
    bias_of(interleaved(kKProj), "blk.{L}.attn_k.bias", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "blk.{L}.attn_v.bias", When::kAttentionBias),
    uniform_bits(8, kOProj),
    bias_of(kOProj, "blk.{L}.attn_output.bias", When::kAttentionBias),
    in_gguf(stacked_experts(
                "model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj", Role::kExpertGate,
                When::kAlways,
                {{{"model.layers.{L}.block_sparse_moe.input_linear.weight", Part::kFirstHalf},
                  {"model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj.weight"}}}),
            "blk.{L}.ffn_gate_exps.weight", Part::kFirstHalf),
    in_gguf(
        stacked_experts(
            "model.layers.{L}.block_sparse_moe.switch_mlp.up_proj", Role::kExpertUp, When::kAlways,
            {{{"model.layers.{L}.block_sparse_moe.input_linear.weight", Part::kSecondHalf},
              {"model.layers.{L}.block_sparse_moe.switch_mlp.up_proj.weight"}}}),
        "blk.{L}.ffn_up_exps.weight", Part::kSecondHalf),
    in_gguf(
        uniform_bits(8, stacked_experts(
                            "model.layers.{L}.block_sparse_moe.switch_mlp.down_proj",
                            Role::kExpertDown, When::kAlways,
                            {{{"model.layers.{L}.block_sparse_moe.output_linear.weight"},
                              {"model.layers.{L}.block_sparse_moe.switch_mlp.down_proj.weight"}}})),
        "blk.{L}.ffn_down_exps.weight"),
    in_gguf(
        router("model.layers.{L}.block_sparse_moe.router.layer", When::kAlways, kRouterBitsFloor),
        "blk.{L}.ffn_gate_inp.weight"),
    kInputNorm,
    kPostAttentionNorm,
};
constexpr ModuleRule kBehind[] = {kFinalNorm, uniform_bits(8, kLmHead)};

}  // namespace

constinit const Family kGraniteMoe = {.name = "granitemoe",
                                      .head_dim = HeadDim::kFromHidden,
                                      .before = kBefore,
                                      .layer = kLayer,
                                      .after = kBehind,
                                      .dropped = kRotaryBuffers,
                                      .experts = ExpertKeys::kMixtral};

}  // namespace sluice::families
