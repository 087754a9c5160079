// Phi-3.5-MoE: biases on all of attention, on the norms, which are layer norms, and on the head;
// and Mixtral's experts in every layer. Phi-tiny and Phi-mini bring no biases in attention, which
// stock mlx_lm cannot load.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    bias_of(kQProj),
    kKProj,
    bias_of(kKProj),
    kVProj,
    bias_of(kVProj),
    kOProj,
    bias_of(kOProj),
    router("model.layers.{L}.block_sparse_moe.gate", When::kAlways, 0),
    kBlockExpertGate,
    kBlockExpertUp,
    kBlockExpertDown,
    kInputNorm,
    bias_of(kInputNorm),
    kPostAttentionNorm,
    bias_of(kPostAttentionNorm),
};
constexpr ModuleRule kBehind[] = {kFinalNorm, bias_of(kFinalNorm), kLmHead, bias_of(kLmHead)};

}  // namespace

constinit const Family kPhimoe = {.name = "phimoe",
                                  .head_dim = HeadDim::kFromHidden,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kBehind,
                                  .dropped = kRotaryBuffers,
                                  .experts = ExpertKeys::kMixtral,
                                  .head_required = true};

}  // namespace sluice::families
