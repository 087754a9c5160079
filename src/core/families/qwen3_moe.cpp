// Qwen3 with experts: Qwen3's attention, and in sparse layers a router and stacked experts. Experts
// come one tensor each, fused by transformers 5 (gate rows before up rows), or stacked already.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

// mlx_lm keeps this router at 8 bits whatever the rest gets.
constexpr int kRouterBitsFloor = 8;

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    kQNorm,
    kKNorm,
    kInputNorm,
    kPostAttentionNorm,
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kDownProj),
    only(When::kDenseMlp, kUpProj),
    {.path = "model.layers.{L}.mlp.gate",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .quantizable = true,
     .bits_floor = kRouterBitsFloor,
     .when = When::kSparseMlp,
     .gguf = "blk.{L}.ffn_gate_inp.weight"},
    in_gguf(stacked_experts("model.layers.{L}.mlp.switch_mlp.gate_proj", Role::kExpertGate,
                            When::kSparseMlp,
                            {{{"model.layers.{L}.mlp.experts.{E}.gate_proj.weight"},
                              {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kFirstHalf},
                              {"model.layers.{L}.mlp.switch_mlp.gate_proj.weight"}}}),
            "blk.{L}.ffn_gate_exps.weight"),
    in_gguf(stacked_experts("model.layers.{L}.mlp.switch_mlp.up_proj", Role::kExpertUp,
                            When::kSparseMlp,
                            {{{"model.layers.{L}.mlp.experts.{E}.up_proj.weight"},
                              {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kSecondHalf},
                              {"model.layers.{L}.mlp.switch_mlp.up_proj.weight"}}}),
            "blk.{L}.ffn_up_exps.weight"),
    in_gguf(stacked_experts("model.layers.{L}.mlp.switch_mlp.down_proj", Role::kExpertDown,
                            When::kSparseMlp,
                            {{{"model.layers.{L}.mlp.experts.{E}.down_proj.weight"},
                              {"model.layers.{L}.mlp.experts.down_proj"},
                              {"model.layers.{L}.mlp.switch_mlp.down_proj.weight"}}}),
            "blk.{L}.ffn_down_exps.weight"),
};

}  // namespace

constinit const Family kQwen3Moe = {.name = "qwen3_moe",
                                    .head_dim = HeadDim::kRequired,
                                    .before = kBefore,
                                    .layer = kLayer,
                                    .after = kAfter,
                                    .dropped = kRotaryBuffers,
                                    .experts = ExpertKeys::kQwen};

}  // namespace sluice::families
