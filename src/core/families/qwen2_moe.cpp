// Qwen1.5 and Qwen2 with experts: Qwen2's attention, experts in every layer, and one more expert
// that every token goes through, times the sigmoid of a gate of its own.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    bias_of(kQProj, "blk.{L}.attn_q.bias"),
    kKProj,
    bias_of(kKProj, "blk.{L}.attn_k.bias"),
    kVProj,
    bias_of(kVProj, "blk.{L}.attn_v.bias"),
    kOProj,
    in_gguf(router("model.layers.{L}.mlp.gate", When::kSparseMlp, 0),
            "blk.{L}.ffn_gate_inp.weight"),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.gate_proj", Role::kMlpGate,
                   Dim::kSharedIntermediate, Dim::kHidden, When::kSparseMlp),
            "blk.{L}.ffn_gate_shexp.weight"),
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.down_proj", Role::kMlpDown, Dim::kHidden,
                   Dim::kSharedIntermediate, When::kSparseMlp),
            "blk.{L}.ffn_down_shexp.weight"),
    in_gguf(linear("model.layers.{L}.mlp.shared_expert.up_proj", Role::kMlpUp,
                   Dim::kSharedIntermediate, Dim::kHidden, When::kSparseMlp),
            "blk.{L}.ffn_up_shexp.weight"),
    in_gguf(linear("model.layers.{L}.mlp.shared_expert_gate", Role::kRouter, Dim::kOne,
                   Dim::kHidden, When::kSparseMlp),
            "blk.{L}.ffn_gate_inp_shexp.weight"),
    kInputNorm,
    kPostAttentionNorm,
};

}  // namespace

constinit const Family kQwen2Moe = {.name = "qwen2_moe",
                                    .head_dim = HeadDim::kFromHidden,
                                    .before = kBefore,
                                    .layer = kLayer,
                                    .after = kAfter,
                                    .dropped = kRotaryBuffers,
                                    .experts = ExpertKeys::kQwen2,
                                    .head_required = true};

}  // namespace sluice::families
