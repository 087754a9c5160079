// GLM-4.5, 4.6 and 4.7: grouped-query attention with biases on q, k and v and norms on their heads,
// each where the configuration says so; DeepSeek's router and shared experts behind the first dense
// layers. Layers from num_hidden_layers on, for multi-token prediction, are dropped.
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
    only(When::kQkNorm, kQNorm),
    only(When::kQkNorm, kKNorm),
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kUpProj),
    only(When::kDenseMlp, kDownProj),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    kFloatRouter,
    kRouterCorrection,
    kSharedGateProj,
    kSharedUpProj,
    kSharedDownProj,
    kInputNorm,
    kPostAttentionNorm,
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
                                   .head_required = true};

}  // namespace sluice::families
