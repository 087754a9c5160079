// MiMo 7B: Qwen2's layout, and layers for multi-token prediction beside it. Source: mlx_lm 0.32's
// mimo, which leaves these out.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj, bias_of(kQProj), kKProj,    bias_of(kKProj), kVProj,     bias_of(kVProj),
    kOProj, kGateProj,       kDownProj, kUpProj,         kInputNorm, kPostAttentionNorm,
};

constexpr OtherPart kPrediction[] = {{"model.mtp_layers.", "multi-token prediction"}};

}  // namespace

constinit const Family kMimo = {.name = "mimo",
                                .head_dim = HeadDim::kFromHidden,
                                .before = kBefore,
                                .layer = kLayer,
                                .after = kAfter,
                                .dropped = kRotaryBuffers,
                                .other_parts = kPrediction};

}  // namespace sluice::families
