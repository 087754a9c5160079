// GLM-4.5, 4.6 and 4.7: grouped-query attention with biases on q, k and v and norms on their heads,
// each where the configuration says so; DeepSeek's router and shared experts behind the first dense
// layers. Layers from num_hidden_layers on, for multi-token prediction, are dropped.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    bias_of(kQProj, "blk.{L}.attn_q.bias", When::kAttentionBias),
    kKProj,
    bias_of(kKProj, "blk.{L}.attn_k.bias", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "blk.{L}.attn_v.bias", When::kAttentionBias),
    kOProj,
    only(When::kQkNorm, kQNorm),
    only(When::kQkNorm, kKNorm),
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kUpProj),
    only(When::kDenseMlp, kDownProj),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    in_gguf(kFloatRouter, "blk.{L}.ffn_gate_inp.weight"),
    in_gguf(kRouterCorrection, "blk.{L}.exp_probs_b.bias"),
    in_gguf(kSharedGateProj, "blk.{L}.ffn_gate_shexp.weight"),
    in_gguf(kSharedUpProj, "blk.{L}.ffn_up_shexp.weight"),
    in_gguf(kSharedDownProj, "blk.{L}.ffn_down_shexp.weight"),
    kInputNorm,
    in_gguf(kPostAttentionNorm, "blk.{L}.post_attention_norm.weight"),
};

}  // namespace

constinit const Family kGlm4Moe = {.name = "glm4_moe",
                                   .head_dim = HeadDim::kRequired,
                                   .before = kBefore,
                                   .layer = kLayer,
                                   .after = kAfter,
                                   .dropped = kRotaryBuffers,
                                   .experts = ExpertKeys::kDeepseek,
                                   .extra_layers_dropped = true,
                                   .head_required = true,
                                   .gguf_extra_layers = true};

}  // namespace sluice::families
