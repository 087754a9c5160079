// Qwen2 and Qwen2.5: Llama's layout with biases on q, k and v, always, and none elsewhere.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,     bias_of(kQProj, "blk.{L}.attn_q.bias"),
    kKProj,     bias_of(kKProj, "blk.{L}.attn_k.bias"),
    kVProj,     bias_of(kVProj, "blk.{L}.attn_v.bias"),
    kOProj,     kGateProj,
    kDownProj,  kUpProj,
    kInputNorm, kPostAttentionNorm,
};

}  // namespace

constinit const Family kQwen2 = {.name = "qwen2",
                                 .head_dim = HeadDim::kFromHidden,
                                 .before = kBefore,
                                 .layer = kLayer,
                                 .after = kAfter,
                                 .dropped = kRotaryBuffers};

}  // namespace sluice::families
