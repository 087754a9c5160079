// Nemotron-H and Nemotron 3: every layer is one thing, a Mamba2 mixer, attention, a feed-forward
// part or experts, as a pattern says. Source: sanitize() of mlx_lm 0.32's nemotron_h, which moves
// the axis of convolutions and stacks experts; A_log and the router's correction keep their type.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule mixer(std::string_view path, Role role, Dim rows, Dim columns, When when) {
  return linear(path, role, rows, columns, when);
}

constexpr ModuleRule vector(std::string_view path, std::string_view parameter, Dim size, When when,
                            bool keep_dtype = false) {
  return {.path = path,
          .parameter = parameter,
          .shape = {size},
          .when = when,
          .keep_dtype = keep_dtype};
}

constexpr ModuleRule biased(const ModuleRule& weight, When when) {
  return bias_of(weight, "", when);
}

constexpr ModuleRule kMambaIn = mixer("backbone.layers.{L}.mixer.in_proj", Role::kAttentionQ,
                                      Dim::kMambaInRows, Dim::kHidden, When::kMambaLayer);
constexpr ModuleRule kMambaOut = mixer("backbone.layers.{L}.mixer.out_proj", Role::kAttentionO,
                                       Dim::kHidden, Dim::kMambaInner, When::kMambaLayer);
constexpr ModuleRule kConv1d = {
    .path = "backbone.layers.{L}.mixer.conv1d",
    .shape = {Dim::kMambaConvChannels, Dim::kLinearConvKernelDim, Dim::kOne},
    .when = When::kMambaLayer,
    .filters = true};
constexpr ModuleRule kQ = mixer("backbone.layers.{L}.mixer.q_proj", Role::kAttentionQ, Dim::kQRows,
                                Dim::kHidden, When::kAttentionLayer);
constexpr ModuleRule kK = mixer("backbone.layers.{L}.mixer.k_proj", Role::kAttentionK, Dim::kKvRows,
                                Dim::kHidden, When::kAttentionLayer);
constexpr ModuleRule kV = mixer("backbone.layers.{L}.mixer.v_proj", Role::kAttentionV, Dim::kKvRows,
                                Dim::kHidden, When::kAttentionLayer);
constexpr ModuleRule kO = mixer("backbone.layers.{L}.mixer.o_proj", Role::kAttentionO, Dim::kHidden,
                                Dim::kQRows, When::kAttentionLayer);
constexpr ModuleRule kUp = mixer("backbone.layers.{L}.mixer.up_proj", Role::kMlpUp,
                                 Dim::kIntermediate, Dim::kHidden, When::kMlpLayer);
constexpr ModuleRule kDown = mixer("backbone.layers.{L}.mixer.down_proj", Role::kMlpDown,
                                   Dim::kHidden, Dim::kIntermediate, When::kMlpLayer);
constexpr ModuleRule kSharedUp =
    mixer("backbone.layers.{L}.mixer.shared_experts.up_proj", Role::kMlpUp,
          Dim::kSharedIntermediate, Dim::kHidden, When::kMoeLayerShared);
constexpr ModuleRule kSharedDown =
    mixer("backbone.layers.{L}.mixer.shared_experts.down_proj", Role::kMlpDown, Dim::kHidden,
          Dim::kSharedIntermediate, When::kMoeLayerShared);
constexpr ModuleRule kLatentIn = mixer("backbone.layers.{L}.mixer.fc1_latent_proj", Role::kMlpUp,
                                       Dim::kExpertLatent, Dim::kHidden, When::kMoeLayerLatent);
constexpr ModuleRule kLatentOut = mixer("backbone.layers.{L}.mixer.fc2_latent_proj", Role::kMlpDown,
                                        Dim::kHidden, Dim::kExpertLatent, When::kMoeLayerLatent);

constexpr ModuleRule kBeforeLayers[] = {
    linear("backbone.embeddings", Role::kEmbedding, Dim::kVocab, Dim::kHidden, When::kAlways)};
constexpr ModuleRule kLayer[] = {
    norm("backbone.layers.{L}.norm", Dim::kHidden, When::kAlways),
    kConv1d,
    vector("backbone.layers.{L}.mixer.conv1d", "bias", Dim::kMambaConvChannels,
           When::kMambaConvBias),
    kMambaIn,
    biased(kMambaIn, When::kMambaProjBias),
    vector("backbone.layers.{L}.mixer", "dt_bias", Dim::kMambaHeads, When::kMambaLayer),
    vector("backbone.layers.{L}.mixer", "A_log", Dim::kMambaHeads, When::kMambaLayer, true),
    vector("backbone.layers.{L}.mixer", "D", Dim::kMambaHeads, When::kMambaLayer),
    norm("backbone.layers.{L}.mixer.norm", Dim::kMambaInner, When::kMambaLayer),
    kMambaOut,
    biased(kMambaOut, When::kMambaProjBias),
    kQ,
    biased(kQ, When::kAttentionLayerBias),
    kK,
    biased(kK, When::kAttentionLayerBias),
    kV,
    biased(kV, When::kAttentionLayerBias),
    kO,
    biased(kO, When::kAttentionLayerBias),
    kUp,
    biased(kUp, When::kMlpLayerBias),
    kDown,
    biased(kDown, When::kMlpLayerBias),
    {.path = "backbone.layers.{L}.mixer.switch_mlp.fc1",
     .role = Role::kExpertUp,
     .shape = {Dim::kExperts, Dim::kExpertIntermediate, Dim::kExpertColumns},
     .quantizable = true,
     .when = When::kMoeLayer,
     .sources = {{{"backbone.layers.{L}.mixer.experts.{E}.up_proj.weight"},
                  {"backbone.layers.{L}.mixer.switch_mlp.fc1.weight"}}}},
    {.path = "backbone.layers.{L}.mixer.switch_mlp.fc2",
     .role = Role::kExpertDown,
     .shape = {Dim::kExperts, Dim::kExpertColumns, Dim::kExpertIntermediate},
     .quantizable = true,
     .when = When::kMoeLayer,
     .sources = {{{"backbone.layers.{L}.mixer.experts.{E}.down_proj.weight"},
                  {"backbone.layers.{L}.mixer.switch_mlp.fc2.weight"}}}},
    // A raw parameter in mlx_lm, which quantizes Linears only.
    {.path = "backbone.layers.{L}.mixer.gate",
     .role = Role::kRouter,
     .shape = {Dim::kExperts, Dim::kHidden},
     .when = When::kMoeLayer},
    vector("backbone.layers.{L}.mixer.gate", "e_score_correction_bias", Dim::kExperts,
           When::kMoeLayer, true),
    kSharedUp,
    biased(kSharedUp, When::kMoeLayerSharedBias),
    kSharedDown,
    biased(kSharedDown, When::kMoeLayerSharedBias),
    kLatentIn,
    biased(kLatentIn, When::kMoeLayerLatentBias),
    kLatentOut,
    biased(kLatentOut, When::kMoeLayerLatentBias),
};
constexpr ModuleRule kAfterLayers[] = {norm("backbone.norm_f", Dim::kHidden, When::kAlways),
                                       kLmHead};

constexpr OtherPart kPrediction[] = {{"mtp.", "multi-token prediction"}};

}  // namespace

constinit const Family kNemotronH = {.name = "nemotron_h",
                                     .head_dim = HeadDim::kOptional,
                                     .before = kBeforeLayers,
                                     .layer = kLayer,
                                     .after = kAfterLayers,
                                     .experts = ExpertKeys::kNemotron,
                                     .head_required = true,
                                     .other_parts = kPrediction,
                                     .unconverted = Unconverted::kConvAxis,
                                     .layer_pattern = true};

}  // namespace sluice::families
