// Gemma 4, the language model of a model that sees or hears: layers that see everything have head
// widths and counts of their own, the last ones may borrow keys and values and be twice as wide,
// and models may have experts beside their feed-forward part or inputs of their own for every
// layer. Source: sanitize() of mlx_lm 0.32's gemma4 and gemma4_text.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

// mlx_lm keeps this router at 8 bits whatever the rest gets.
constexpr int kRouterBitsFloor = 8;

using namespace common;

constexpr ModuleRule linear(std::string_view path, Role role, Dim rows, Dim columns, When when) {
  return {.path = path, .role = role, .shape = {rows, columns}, .quantizable = true, .when = when};
}

constexpr ModuleRule vector(std::string_view path, std::string_view parameter, Role role, Dim size,
                            When when = When::kAlways) {
  return {.path = path, .parameter = parameter, .role = role, .shape = {size}, .when = when};
}

constexpr ModuleRule norm(std::string_view path, Dim size = Dim::kHidden,
                          When when = When::kAlways) {
  return vector(path, "weight", Role::kNorm, size, when);
}

constexpr std::string_view kQ = "model.layers.{L}.self_attn.q_proj";
constexpr std::string_view kK = "model.layers.{L}.self_attn.k_proj";
constexpr std::string_view kV = "model.layers.{L}.self_attn.v_proj";
constexpr std::string_view kO = "model.layers.{L}.self_attn.o_proj";
constexpr std::string_view kNormOfQ = "model.layers.{L}.self_attn.q_norm";
constexpr std::string_view kNormOfK = "model.layers.{L}.self_attn.k_norm";

constexpr ModuleRule kLayer[] = {
    linear(kQ, Role::kAttentionQ, Dim::kQRows, Dim::kHidden, When::kWindowed),
    linear(kQ, Role::kAttentionQ, Dim::kGlobalQRows, Dim::kHidden, When::kGlobal),
    linear(kK, Role::kAttentionK, Dim::kKvRows, Dim::kHidden, When::kWindowedKv),
    linear(kK, Role::kAttentionK, Dim::kGlobalKvRows, Dim::kHidden, When::kGlobalKv),
    linear(kV, Role::kAttentionV, Dim::kKvRows, Dim::kHidden, When::kWindowedKv),
    linear(kV, Role::kAttentionV, Dim::kGlobalKvRows, Dim::kHidden, When::kGlobalV),
    linear(kO, Role::kAttentionO, Dim::kHidden, Dim::kQRows, When::kWindowed),
    linear(kO, Role::kAttentionO, Dim::kHidden, Dim::kGlobalQRows, When::kGlobal),
    norm(kNormOfQ, Dim::kHeadDim, When::kWindowed),
    norm(kNormOfQ, Dim::kGlobalHeadDim, When::kGlobal),
    norm(kNormOfK, Dim::kHeadDim, When::kWindowedKv),
    norm(kNormOfK, Dim::kGlobalHeadDim, When::kGlobalKv),
    only(When::kNarrowMlp, kGateProj),
    only(When::kNarrowMlp, kDownProj),
    only(When::kNarrowMlp, kUpProj),
    linear(kGateProj.path, Role::kMlpGate, Dim::kDoubleIntermediate, Dim::kHidden, When::kWideMlp),
    linear(kDownProj.path, Role::kMlpDown, Dim::kHidden, Dim::kDoubleIntermediate, When::kWideMlp),
    linear(kUpProj.path, Role::kMlpUp, Dim::kDoubleIntermediate, Dim::kHidden, When::kWideMlp),
    kInputNorm,
    kPostAttentionNorm,
    norm("model.layers.{L}.pre_feedforward_layernorm"),
    norm("model.layers.{L}.post_feedforward_layernorm"),
    {.path = "model.layers.{L}.router.proj",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .quantizable = true,
     .bits_floor = kRouterBitsFloor,
     .when = When::kSparseMlp},
    vector("model.layers.{L}.router", "scale", Role::kOther, Dim::kHidden, When::kSparseMlp),
    vector("model.layers.{L}.router", "per_expert_scale", Role::kOther, Dim::kExperts,
           When::kSparseMlp),
    stacked_experts("model.layers.{L}.experts.switch_glu.gate_proj", Role::kExpertGate,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.experts.gate_up_proj", Part::kFirstHalf},
                      {"model.layers.{L}.experts.switch_glu.gate_proj.weight"}}}),
    stacked_experts("model.layers.{L}.experts.switch_glu.up_proj", Role::kExpertUp,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.experts.gate_up_proj", Part::kSecondHalf},
                      {"model.layers.{L}.experts.switch_glu.up_proj.weight"}}}),
    stacked_experts("model.layers.{L}.experts.switch_glu.down_proj", Role::kExpertDown,
                    When::kSparseMlp,
                    {{{"model.layers.{L}.experts.down_proj"},
                      {"model.layers.{L}.experts.switch_glu.down_proj.weight"}}}),
    norm("model.layers.{L}.post_feedforward_layernorm_1", Dim::kHidden, When::kSparseMlp),
    norm("model.layers.{L}.post_feedforward_layernorm_2", Dim::kHidden, When::kSparseMlp),
    norm("model.layers.{L}.pre_feedforward_layernorm_2", Dim::kHidden, When::kSparseMlp),
    linear("model.layers.{L}.per_layer_input_gate", Role::kOther, Dim::kLayerInput, Dim::kHidden,
           When::kLayerInputs),
    linear("model.layers.{L}.per_layer_projection", Role::kOther, Dim::kHidden, Dim::kLayerInput,
           When::kLayerInputs),
    norm("model.layers.{L}.post_per_layer_input_norm", Dim::kHidden, When::kLayerInputs),
    vector("model.layers.{L}", "layer_scalar", Role::kOther, Dim::kOne),
};

constexpr ModuleRule kAround[] = {
    kFinalNorm,
    {.path = "model.embed_tokens_per_layer",
     .role = Role::kEmbedding,
     .shape = {Dim::kLayerInputVocab, Dim::kLayerInputsTogether},
     .quantizable = true,
     .when = When::kLayerInputs},
    linear("model.per_layer_model_projection", Role::kOther, Dim::kLayerInputsTogether,
           Dim::kHidden, When::kLayerInputs),
    norm("model.per_layer_projection_norm", Dim::kLayerInput, When::kLayerInputs),
    kLmHead,
};

constexpr NamePrefix kPrefixes[] = {{"language_model.", ""}, {"model.language_model.", "model."}};
constexpr OtherPart kOtherParts[] = {{"vision_tower.", "vision part"},
                                     {"model.vision_tower.", "vision part"},
                                     {"embed_vision.", "vision part"},
                                     {"model.embed_vision.", "vision part"},
                                     {"vision_embedder.", "vision part"},
                                     {"model.vision_embedder.", "vision part"},
                                     {"multi_modal_projector.", "vision part"},
                                     {"model.multi_modal_projector.", "vision part"},
                                     {"audio_tower.", "audio part"},
                                     {"model.audio_tower.", "audio part"},
                                     {"embed_audio.", "audio part"},
                                     {"model.embed_audio.", "audio part"}};

// Ranges of activations that were measured, and keys and values of layers that borrow them.
constexpr std::string_view kDropped[] = {
    "model.layers.{L}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
    "model.layers.{L}.self_attn.k_proj.weight", "model.layers.{L}.self_attn.v_proj.weight",
    "model.layers.{L}.self_attn.k_norm.weight"};

constexpr ConfigDefault kTextDefaults[] = {
    {"num_attention_heads", 8}, {"num_key_value_heads", 1}, {"vocab_size", 262144}};

}  // namespace

constinit const Family kGemma4 = {.name = "gemma4",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kAround,
                                  .dropped = kDropped,
                                  .experts = ExpertKeys::kGemma4,
                                  .tied_by_default = true,
                                  .source_prefixes = kPrefixes,
                                  .output_prefix = "language_model.",
                                  .other_parts = kOtherParts,
                                  .defaults = kTextDefaults,
                                  .vocab_beside_text = true};

}  // namespace sluice::families
