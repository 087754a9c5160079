// Mixtral: Llama's attention, and in every layer a router and experts, whose matrices are w1
// (gate), w3 (up) and w2 (down).
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    kInputNorm,
    kPostAttentionNorm,
    {.path = "model.layers.{L}.block_sparse_moe.gate",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .quantizable = true},
    {.path = "model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj",
     .role = Role::kExpertGate,
     .shape = {Dim::kExperts, Dim::kExpertIntermediate, Dim::kHidden},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w1.weight"},
                  {"model.layers.{L}.block_sparse_moe.switch_mlp.gate_proj.weight"}}}},
    {.path = "model.layers.{L}.block_sparse_moe.switch_mlp.up_proj",
     .role = Role::kExpertUp,
     .shape = {Dim::kExperts, Dim::kExpertIntermediate, Dim::kHidden},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w3.weight"},
                  {"model.layers.{L}.block_sparse_moe.switch_mlp.up_proj.weight"}}}},
    {.path = "model.layers.{L}.block_sparse_moe.switch_mlp.down_proj",
     .role = Role::kExpertDown,
     .shape = {Dim::kExperts, Dim::kHidden, Dim::kExpertIntermediate},
     .quantizable = true,
     .sources = {{{"model.layers.{L}.block_sparse_moe.experts.{E}.w2.weight"},
                  {"model.layers.{L}.block_sparse_moe.switch_mlp.down_proj.weight"}}}},
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
