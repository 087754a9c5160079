// OLMoE: Llama's attention with a norm over all heads of q and one over all heads of k, and experts
// of intermediate_size in every layer.
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
    bias_of(kOProj, "blk.{L}.attn_output.bias", When::kAttentionBias),
    in_gguf(kQRowNorm, "blk.{L}.attn_q_norm.weight"),
    in_gguf(kKRowNorm, "blk.{L}.attn_k_norm.weight"),
    in_gguf(router("model.layers.{L}.mlp.gate", When::kSparseMlp, 0),
            "blk.{L}.ffn_gate_inp.weight"),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    kInputNorm,
    kPostAttentionNorm,
};

}  // namespace

constinit const Family kOlmoe = {
    .name = "olmoe",
    .before = kBefore,
    .layer = kLayer,
    .after = kAfter,
    .dropped = kRotaryBuffers,
    .experts = ExpertKeys::kOlmoe,
};

}  // namespace sluice::families
