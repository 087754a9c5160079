// Qwen3 with experts: Qwen3's attention, and in sparse layers a router and stacked experts. Experts
// come one tensor each, fused by transformers 5 (gate rows before up rows), or stacked already.
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
    kInputNorm,
    kPostAttentionNorm,
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kDownProj),
    only(When::kDenseMlp, kUpProj),
    in_gguf(router("model.layers.{L}.mlp.gate", When::kSparseMlp, kRouterBitsFloor),
            "blk.{L}.ffn_gate_inp.weight"),
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
};

}  // namespace

constinit const Family kQwen3Moe = {.name = "qwen3_moe",
                                    .head_dim = HeadDim::kRequired,
                                    .before = kBefore,
                                    .layer = kLayer,
                                    .after = kAfter,
                                    .dropped = kRotaryBuffers,
                                    .experts = ExpertKeys::kQwen};

}  // namespace sluice::families
