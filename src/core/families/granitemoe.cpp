// Granite 3 with experts in every layer: input_linear holds the rows of gate and then those of up
// of each expert, output_linear those of down. 8 bits as in granite.cpp, which mlx_lm's rule for
// names that end in mlp.down_proj extends to the experts.
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
    stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj", Role::kExpertGate,
                    When::kAlways,
                    {{{"model.layers.{L}.block_sparse_moe.input_linear.weight", Part::kFirstHalf},
                      {"model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj.weight"}}}),
    stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.up_proj", Role::kExpertUp,
                    When::kAlways,
                    {{{"model.layers.{L}.block_sparse_moe.input_linear.weight", Part::kSecondHalf},
                      {"model.layers.{L}.block_sparse_moe.switch_mlp.up_proj.weight"}}}),
    uniform_bits(
        8, stacked_experts("model.layers.{L}.block_sparse_moe.switch_mlp.down_proj",
                           Role::kExpertDown, When::kAlways,
                           {{{"model.layers.{L}.block_sparse_moe.output_linear.weight"},
                             {"model.layers.{L}.block_sparse_moe.switch_mlp.down_proj.weight"}}})),
    router("model.layers.{L}.block_sparse_moe.router.layer", When::kAlways, kRouterBitsFloor),
    kInputNorm,
    kPostAttentionNorm,
};
constexpr ModuleRule kBehind[] = {kFinalNorm, uniform_bits(8, kLmHead)};

}  // namespace

constinit const Family kGraniteMoe = {.name = "granitemoe",
                                      .head_dim = HeadDim::kFromHidden,
                                      .before = kBefore,
                                      .layer = kLayer,
                                      .after = kBehind,
                                      .dropped = kRotaryBuffers,
                                      .experts = ExpertKeys::kMixtral};

}  // namespace sluice::families
