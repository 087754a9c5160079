// Llama 4 (Scout and Maverick), the language model of a model that sees: Llama's attention, and in
// all or every so many layers a router, a shared expert, and experts fused into stacks of [in, out]
// matrices, gate columns before up columns. Source: sanitize() of mlx_lm 0.32's llama4.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule linear(std::string_view path, Role role, Dim rows, Dim columns, When when) {
  return {.path = path, .role = role, .shape = {rows, columns}, .quantizable = true, .when = when};
}

constexpr ModuleRule kLayer[] = {
    kQProj,
    bias_of(kQProj, "", When::kAttentionBias),
    kKProj,
    bias_of(kKProj, "", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "", When::kAttentionBias),
    kOProj,
    bias_of(kOProj, "", When::kAttentionBias),
    stacked_experts("model.layers.{L}.feed_forward.experts.gate_proj", Role::kExpertGate,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.feed_forward.experts.gate_up_proj", Part::kFirstColumns},
                      {"model.layers.{L}.feed_forward.experts.gate_proj.weight"}}}),
    stacked_experts("model.layers.{L}.feed_forward.experts.up_proj", Role::kExpertUp,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.feed_forward.experts.gate_up_proj", Part::kSecondColumns},
                      {"model.layers.{L}.feed_forward.experts.up_proj.weight"}}}),
    stacked_experts("model.layers.{L}.feed_forward.experts.down_proj", Role::kExpertDown,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.feed_forward.experts.down_proj", Part::kColumns},
                      {"model.layers.{L}.feed_forward.experts.down_proj.weight"}}}),
    linear("model.layers.{L}.feed_forward.router", Role::kRouter, Dim::kExperts, Dim::kHidden,
           When::kSparseMlp),
    linear("model.layers.{L}.feed_forward.shared_expert.gate_proj", Role::kMlpGate,
           Dim::kSharedIntermediate, Dim::kHidden, When::kSparseMlp),
    linear("model.layers.{L}.feed_forward.shared_expert.down_proj", Role::kMlpDown, Dim::kHidden,
           Dim::kSharedIntermediate, When::kSparseMlp),
    linear("model.layers.{L}.feed_forward.shared_expert.up_proj", Role::kMlpUp,
           Dim::kSharedIntermediate, Dim::kHidden, When::kSparseMlp),
    linear("model.layers.{L}.feed_forward.gate_proj", Role::kMlpGate, Dim::kIntermediate,
           Dim::kHidden, When::kDenseMlp),
    linear("model.layers.{L}.feed_forward.down_proj", Role::kMlpDown, Dim::kHidden,
           Dim::kIntermediate, When::kDenseMlp),
    linear("model.layers.{L}.feed_forward.up_proj", Role::kMlpUp, Dim::kIntermediate, Dim::kHidden,
           When::kDenseMlp),
    kInputNorm,
    kPostAttentionNorm,
};

constexpr NamePrefix kPrefixes[] = {{"language_model.", ""}};
constexpr OtherPart kOtherParts[] = {{"vision_model.", "vision part"},
                                     {"multi_modal_projector.", "vision part"}};

}  // namespace

constinit const Family kLlama4 = {.name = "llama4",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kAfter,
                                  .dropped = kRotaryBuffers,
                                  .experts = ExpertKeys::kLlama4,
                                  .head_required = true,
                                  .source_prefixes = kPrefixes,
                                  .output_prefix = "language_model.",
                                  .other_parts = kOtherParts};

}  // namespace sluice::families
