// Qwen3-Next: three layers of linear attention to one of gated softmax attention, with experts and
// a shared one. The projections of linear attention stay fused, as transformers has them. Source:
// sanitize() of mlx_lm 0.32's qwen3_next, which takes a checkpoint to be converted unless it finds
// separate experts; one with fused experts, which mlx_lm does not load, is known by its
// convolution.
#include "families/linear_attention_rules.h"

namespace sluice::families {
namespace {

using namespace common;

// The rows of each key head: llama.cpp's converter takes them apart, in_proj_ba's it does not.
constexpr ModuleRule in_proj_qkvz() {
  ModuleRule rule = linear("model.layers.{L}.linear_attn.in_proj_qkvz", Role::kAttentionQ,
                           Dim::kLinearQkvzRows, Dim::kHidden, When::kLinearAttention);
  rule.gguf = "blk.{L}.attn_qkv.weight";
  rule.gguf_part = Part::kQkvAndGate;
  return rule;
}

constexpr auto kConvolution = std::to_array<ModuleRule>({kConv1d});
constexpr auto kFused = std::to_array<ModuleRule>({in_proj_qkvz()});
constexpr auto kSeparate = std::to_array<ModuleRule>({kInQkv, kInZ});
constexpr auto kRest = std::to_array<ModuleRule>({
    in_gguf(linear("model.layers.{L}.linear_attn.in_proj_ba", Role::kOther, Dim::kLinearBaRows,
                   Dim::kHidden, When::kLinearAttention),
            "blk.{L}.ssm_ba.weight"),
    kDtBias,
    kALog,
    kLinearNorm,
    kLinearOut,
    kGatedQ,
    bias_where_asked(kGatedQ),
    kFullK,
    bias_where_asked(kFullK),
    kFullV,
    bias_where_asked(kFullV),
    kFullO,
    bias_where_asked(kFullO),
    kFullQNorm,
    kFullKNorm,
    zero_centred(kInputNorm),
    kHybridPostAttentionNorm,
    only(When::kDenseMlp, kGateProj),
    only(When::kDenseMlp, kDownProj),
    only(When::kDenseMlp, kUpProj),
    kQwenRouter,
    kMlpExpertGate,
    kMlpExpertUp,
    kMlpExpertDown,
    kSharedGate,
    kSharedDown,
    kSharedUp,
    kSharedExpertGate,
});

constexpr auto kLayer = joined(kConvolution, kFused, kRest);
constexpr auto kStoredLayer = joined(kConvolution, kSeparate, kRest);

}  // namespace

constinit const Family kQwen3Next = {.name = "qwen3_next",
                                     .head_dim = HeadDim::kRequired,
                                     .before = kBefore,
                                     .layer = kLayer,
                                     .after = kHybridAfter,
                                     .dropped = kRotaryBuffers,
                                     .experts = ExpertKeys::kQwenShared,
                                     .other_parts = kVisionAndPrediction,
                                     .unconverted = Unconverted::kSeparateExperts,
                                     .linear_attention = true,
                                     .gguf_stored_layer = kStoredLayer,
                                     .gguf_extra_layers = true};

}  // namespace sluice::families
