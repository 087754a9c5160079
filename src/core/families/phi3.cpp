// Phi-3, Phi-3.5 and Phi-4: q, k and v are the rows of one matrix, gate and up those of another.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

// Values decide about the quality of the fused matrix, as they do alone.
constexpr ModuleRule kLayer[] = {
    linear("model.layers.{L}.self_attn.qkv_proj", Role::kAttentionV, Dim::kQkvRows, Dim::kHidden),
    kOProj,
    linear("model.layers.{L}.mlp.gate_up_proj", Role::kMlpUp, Dim::kGateUpRows, Dim::kHidden),
    kDownProj,
    kInputNorm,
    kPostAttentionNorm,
};

}  // namespace

constinit const Family kPhi3 = {.name = "phi3",
                                .head_dim = HeadDim::kFromHidden,
                                .before = kBefore,
                                .layer = kLayer,
                                .after = kAfter,
                                .dropped = kRotaryBuffers};

}  // namespace sluice::families
