// gpt-oss: biases on every Linear, a sink per query head, a router with a bias, and experts with
// biases whose gate and up rows alternate. They come in MXFP4 as published, [out, in], or fused in
// 16 bits, [in, out] with alternating columns. Source: sanitize() of mlx_lm 0.32's gpt_oss, which
// does not turn the latter round.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

// mlx_lm keeps this router at 8 bits whatever the rest gets.
constexpr int kRouterBitsFloor = 8;

using namespace common;

constexpr ModuleRule expert_bias(std::string_view path, Dim rows, std::string_view gguf,
                                 std::array<SourceRule, 3> sources) {
  return {.path = path,
          .parameter = "bias",
          .role = Role::kBias,
          .shape = {Dim::kExperts, rows},
          .sources = sources,
          .gguf = gguf};
}

constexpr ModuleRule kRouter = {.path = "model.layers.{L}.mlp.router",
                                .role = Role::kRouter,
                                .shape = {Dim::kExperts, Dim::kHidden},
                                .quantizable = true,
                                .bits_floor = kRouterBitsFloor,
                                .gguf = "blk.{L}.ffn_gate_inp.weight"};

constexpr ModuleRule kLayer[] = {
    {.path = "model.layers.{L}.self_attn",
     .parameter = "sinks",
     .role = Role::kOther,
     .shape = {Dim::kHeads},
     .gguf = "blk.{L}.attn_sinks.weight"},
    kQProj,
    bias_of(kQProj, "blk.{L}.attn_q.bias"),
    kKProj,
    bias_of(kKProj, "blk.{L}.attn_k.bias"),
    kVProj,
    bias_of(kVProj, "blk.{L}.attn_v.bias"),
    kOProj,
    bias_of(kOProj, "blk.{L}.attn_output.bias"),
    in_gguf(
        stacked_experts("model.layers.{L}.mlp.experts.gate_proj", Role::kExpertGate, When::kAlways,
                        {{{"model.layers.{L}.mlp.experts.gate_up_proj_blocks", Part::kEvenRows},
                          {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kEvenColumns},
                          {"model.layers.{L}.mlp.experts.gate_proj.weight"}}}),
        "blk.{L}.ffn_gate_exps.weight"),
    expert_bias("model.layers.{L}.mlp.experts.gate_proj", Dim::kExpertIntermediate,
                "blk.{L}.ffn_gate_exps.bias",
                {{{"model.layers.{L}.mlp.experts.gate_up_proj_bias", Part::kEvenRows},
                  {"model.layers.{L}.mlp.experts.gate_proj.bias"}}}),
    in_gguf(stacked_experts("model.layers.{L}.mlp.experts.up_proj", Role::kExpertUp, When::kAlways,
                            {{{"model.layers.{L}.mlp.experts.gate_up_proj_blocks", Part::kOddRows},
                              {"model.layers.{L}.mlp.experts.gate_up_proj", Part::kOddColumns},
                              {"model.layers.{L}.mlp.experts.up_proj.weight"}}}),
            "blk.{L}.ffn_up_exps.weight"),
    expert_bias("model.layers.{L}.mlp.experts.up_proj", Dim::kExpertIntermediate,
                "blk.{L}.ffn_up_exps.bias",
                {{{"model.layers.{L}.mlp.experts.gate_up_proj_bias", Part::kOddRows},
                  {"model.layers.{L}.mlp.experts.up_proj.bias"}}}),
    in_gguf(
        stacked_experts("model.layers.{L}.mlp.experts.down_proj", Role::kExpertDown, When::kAlways,
                        {{{"model.layers.{L}.mlp.experts.down_proj_blocks"},
                          {"model.layers.{L}.mlp.experts.down_proj", Part::kColumns},
                          {"model.layers.{L}.mlp.experts.down_proj.weight"}}}),
        "blk.{L}.ffn_down_exps.weight"),
    expert_bias("model.layers.{L}.mlp.experts.down_proj", Dim::kHidden,
                "blk.{L}.ffn_down_exps.bias",
                {{{"model.layers.{L}.mlp.experts.down_proj_bias"},
                  {"model.layers.{L}.mlp.experts.down_proj.bias"}}}),
    kRouter,
    bias_of(kRouter, "blk.{L}.ffn_gate_inp.bias"),
    kInputNorm,
    in_gguf(kPostAttentionNorm, "blk.{L}.post_attention_norm.weight"),
};

}  // namespace

constinit const Family kGptOss = {.name = "gpt_oss",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kAfter,
                                  .dropped = kRotaryBuffers,
                                  .experts = ExpertKeys::kMixtral,
                                  .head_required = true};

}  // namespace sluice::families
