// OLMoE: Llama's attention with a norm over all heads of q and one over all heads of k, and experts
// of intermediate_size in every layer.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    bias_of(kQProj, "", When::kAttentionBias),
    kKProj,
    bias_of(kKProj, "", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "", When::kAttentionBias),
    kOProj,
    bias_of(kOProj, "", When::kAttentionBias),
    kQRowNorm,
    kKRowNorm,
    router("model.layers.{L}.mlp.gate", When::kSparseMlp, 0),
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
