// Gemma 2: norms before and behind either half of a layer, as they are stored, less one. mlx_lm
// knows no head of its own. Source: mlx_lm 0.32's gemma2.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    kGateProj,
    kDownProj,
    kUpProj,
    kInputNorm,
    norm("model.layers.{L}.pre_feedforward_layernorm", Dim::kHidden),
    norm("model.layers.{L}.post_feedforward_layernorm", Dim::kHidden),
    kPostAttentionNorm,
};

constexpr ModuleRule kAfterTied[] = {kFinalNorm};

}  // namespace

constinit const Family kGemma2 = {.name = "gemma2",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kAfterTied,
                                  .dropped = kRotaryBuffers,
                                  .tied_by_default = true,
                                  .window_pattern = 2};

}  // namespace sluice::families
