// MiniMax-M2 to M2.7: norms over all heads of q and of k, and Mixtral's experts in every layer,
// with a bias that takes part in the router's choice.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    only(When::kQkNorm, kQRowNorm),
    only(When::kQkNorm, kKRowNorm),
    router("model.layers.{L}.block_sparse_moe.gate", When::kAlways, kRouterBitsFloor),
    kBlockExpertGate,
    kBlockExpertUp,
    kBlockExpertDown,
    {.path = "model.layers.{L}.block_sparse_moe",
     .parameter = "e_score_correction_bias",
     .role = Role::kBias,
     .shape = {Dim::kExperts},
     .keep_dtype = true},
    kInputNorm,
    kPostAttentionNorm,
};

}  // namespace

constinit const Family kMinimaxM2 = {.name = "minimax_m2",
                                     .before = kBefore,
                                     .layer = kLayer,
                                     .after = kAfter,
                                     .dropped = kRotaryBuffers,
                                     .experts = ExpertKeys::kMixtral,
                                     .qk_norm = true};

}  // namespace sluice::families
