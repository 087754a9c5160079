// Qwen3.5 and Qwen3.6, dense and with experts: Qwen3-Next's layers with separate projections, as
// the language model of a model that sees. Source: sanitize() of mlx_lm 0.32's qwen3_5 and
// qwen3_5_moe, which take a checkpoint to be unconverted when the axes of a convolution are
// transformers'.
#include "families/linear_attention_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule in_float_type_of_source(ModuleRule rule) {
  rule.keep_dtype = true;
  return rule;
}

constexpr ModuleRule kLayer[] = {
    tiled(ValueHeads::kRowsBehindKeys, kConv1d),
    tiled(ValueHeads::kRowsBehindKeys, kInQkv),
    tiled(ValueHeads::kRows, kInZ),
    tiled(ValueHeads::kRows,
          in_gguf(linear("model.layers.{L}.linear_attn.in_proj_b", Role::kOther,
                         Dim::kLinearValueHeads, Dim::kHidden, When::kLinearAttention),
                  "blk.{L}.ssm_beta.weight")),
    tiled(ValueHeads::kRows,
          in_gguf(linear("model.layers.{L}.linear_attn.in_proj_a", Role::kOther,
                         Dim::kLinearValueHeads, Dim::kHidden, When::kLinearAttention),
                  "blk.{L}.ssm_alpha.weight")),
    tiled(ValueHeads::kRows, kDtBias),
    in_float_type_of_source(tiled(ValueHeads::kRows, kALog)),
    kLinearNorm,
    tiled(ValueHeads::kColumns, kLinearOut),
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
};

constexpr Family family(std::string_view name, std::string_view text_model_type) {
  return {.name = name,
          .text_model_type = text_model_type,
          .head_dim = HeadDim::kOptional,
          .before = kBefore,
          .layer = kLayer,
          .after = kHybridAfter,
          .dropped = kRotaryBuffers,
          .experts = ExpertKeys::kQwenAllSparse,
          .source_prefixes = kTextPrefixes,
          .output_prefix = kTextOutputPrefix,
          .other_parts = kVisionAndPrediction,
          .unconverted = Unconverted::kConvAxis,
          .linear_attention = true,
          .gguf_tiled_heads = true,
          .gguf_extra_layers = true};
}

}  // namespace

constinit const Family kQwen3_5 = family("qwen3_5", "qwen3_5_text");
constinit const Family kQwen3_5Moe = family("qwen3_5_moe", "qwen3_5_moe_text");

}  // namespace sluice::families
