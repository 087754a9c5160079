// Mixtral: Llama's attention, and in every layer a router and experts, whose matrices are w1
// (gate), w3 (up) and w2 (down).
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

// llama.cpp's architecture llama with experts: rows of q and k interleaved as there.
constexpr ModuleRule kLayer[] = {
    interleaved(kQProj),
    interleaved(kKProj),
    kVProj,
    kOProj,
    kInputNorm,
    kPostAttentionNorm,
    in_gguf(router("model.layers.{L}.block_sparse_moe.gate", When::kAlways, 0),
            "blk.{L}.ffn_gate_inp.weight"),
    kBlockExpertGate,
    kBlockExpertUp,
    kBlockExpertDown,
};

}  // namespace

constinit const Family kMixtral = {.name = "mixtral",
                                   .head_dim = HeadDim::kFromHidden,
                                   .before = kBefore,
                                   .layer = kLayer,
                                   .after = kAfter,
                                   .dropped = kRotaryBuffers,
                                   .experts = ExpertKeys::kMixtral};

}  // namespace sluice::families
