// Qwen3, dense: no biases, an explicit head_dim, and an RMS norm on each head of q and k.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    kQNorm,
    kKNorm,
    kGateProj,
    kDownProj,
    kUpProj,
    kInputNorm,
    kPostAttentionNorm,
};

}  // namespace

constinit const Family kQwen3 = {.name = "qwen3",
                                 .head_dim = HeadDim::kRequired,
                                 .before = kBefore,
                                 .layer = kLayer,
                                 .after = kAfter,
                                 .dropped = kRotaryBuffers};

}  // namespace sluice::families
