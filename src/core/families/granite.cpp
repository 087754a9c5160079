// Granite 3, dense: Llama's layout. What sets it apart are multipliers, which are the forward
// pass's. mlx_lm keeps the output projections of its layers and its head at 8 bits in uniform
// conversions.
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
    uniform_bits(8, kOProj),
    bias_of(kOProj, "", When::kAttentionBias),
    kGateProj,
    bias_of(kGateProj, "", When::kMlpBias),
    uniform_bits(8, kDownProj),
    bias_of(kDownProj, "", When::kMlpBias),
    kUpProj,
    bias_of(kUpProj, "", When::kMlpBias),
    kInputNorm,
    kPostAttentionNorm,
};
constexpr ModuleRule kBehind[] = {kFinalNorm, uniform_bits(8, kLmHead)};

}  // namespace

constinit const Family kGranite = {.name = "granite",
                                   .head_dim = HeadDim::kFromHidden,
                                   .before = kBefore,
                                   .layer = kLayer,
                                   .after = kBehind,
                                   .dropped = kRotaryBuffers};

}  // namespace sluice::families
