// Qwen3-VL, dense and with experts: Qwen3 as the language model of a model that sees. Experts are
// fused into stacks of [in, out] matrices, gate columns before up columns. Source: sanitize() of
// mlx_lm 0.32's qwen3_vl and qwen3_vl_moe.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kDenseLayer[] = {
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

constexpr std::string_view kFused = "model.layers.{L}.mlp.experts.gate_up_proj";

constexpr ModuleRule kExpertGate = stacked_experts(
    "model.layers.{L}.mlp.switch_mlp.gate_proj", Role::kExpertGate, When::kSparseMlp,
    {{{kFused, Part::kFirstColumns}, {"model.layers.{L}.mlp.switch_mlp.gate_proj.weight"}}});
constexpr ModuleRule kExpertUp = stacked_experts(
    "model.layers.{L}.mlp.switch_mlp.up_proj", Role::kExpertUp, When::kSparseMlp,
    {{{kFused, Part::kSecondColumns}, {"model.layers.{L}.mlp.switch_mlp.up_proj.weight"}}});
constexpr ModuleRule kExpertDown = stacked_experts(
    "model.layers.{L}.mlp.switch_mlp.down_proj", Role::kExpertDown, When::kSparseMlp,
    {{{"model.layers.{L}.mlp.experts.down_proj", Part::kColumns},
      {"model.layers.{L}.mlp.switch_mlp.down_proj.weight"}}});

constexpr ModuleRule kSparseLayer[] = {
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
    router("model.layers.{L}.mlp.gate", When::kSparseMlp, kRouterBitsFloor),
    kExpertGate,
    kExpertUp,
    kExpertDown,
};

constexpr OtherPart kOtherParts[] = {
    {"model.visual.", "vision part"}, {"visual.", "vision part"}, {"vision_tower.", "vision part"}};

constexpr Family family(std::string_view name, std::span<const ModuleRule> layer) {
  return {.name = name,
          .head_dim = HeadDim::kRequired,
          .before = kBefore,
          .layer = layer,
          .after = kAfter,
          .dropped = kRotaryBuffers,
          .source_prefixes = kTextPrefixes,
          .output_prefix = kTextOutputPrefix,
          .other_parts = kOtherParts};
}

constexpr Family with_experts() {
  Family made = family("qwen3_vl_moe", kSparseLayer);
  made.experts = ExpertKeys::kQwen;
  made.head_required = true;
  return made;
}

}  // namespace

constinit const Family kQwen3Vl = family("qwen3_vl", kDenseLayer);
constinit const Family kQwen3VlMoe = with_experts();

}  // namespace sluice::families
