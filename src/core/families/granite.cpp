// Granite 3, dense: Llama's layout. What sets it apart are multipliers, which are the forward
// pass's. mlx_lm keeps the output projections of its layers and its head at 8 bits in uniform
// conversions.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    interleaved(kQProj),
    bias_of(interleaved(kQProj), "blk.{L}.attn_q.bias", When::kAttentionBias),
    interleaved(kKProj),
    bias_of(interleaved(kKProj), "blk.{L}.attn_k.bias", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "blk.{L}.attn_v.bias", When::kAttentionBias),
    uniform_bits(8, kOProj),
    bias_of(kOProj, "blk.{L}.attn_output.bias", When::kAttentionBias),
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
