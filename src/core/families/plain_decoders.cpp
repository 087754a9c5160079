// Families whose layers are Llama's by names and shapes, and which differ in the forward pass or in
// what surrounds the layers: SmolLM3, Seed-OSS, ERNIE 4.5 (dense), and Mistral Small 3.1 and later,
// the language model of a model that sees. Source: mlx_lm 0.32's modules of the same names.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kPlainLayer[] = {
    kQProj, kKProj, kVProj, kOProj, kGateProj, kDownProj, kUpProj, kInputNorm, kPostAttentionNorm,
};

// Biases where the configuration says so: of q, k and v, and of the feed-forward part.
constexpr ModuleRule kSeedLayer[] = {
    kQProj,
    bias_of(kQProj, "", When::kAttentionBias),
    kKProj,
    bias_of(kKProj, "", When::kAttentionBias),
    kVProj,
    bias_of(kVProj, "", When::kAttentionBias),
    kOProj,
    kGateProj,
    bias_of(kGateProj, "", When::kMlpBias),
    kDownProj,
    bias_of(kDownProj, "", When::kMlpBias),
    kUpProj,
    bias_of(kUpProj, "", When::kMlpBias),
    kInputNorm,
    kPostAttentionNorm,
};
constexpr ModuleRule kBiasedLayer[] = {
    kQProj,     bias_of(kQProj, "", When::kAttentionBias),
    kKProj,     bias_of(kKProj, "", When::kAttentionBias),
    kVProj,     bias_of(kVProj, "", When::kAttentionBias),
    kOProj,     bias_of(kOProj, "", When::kAttentionBias),
    kGateProj,  bias_of(kGateProj, "", When::kMlpBias),
    kDownProj,  bias_of(kDownProj, "", When::kMlpBias),
    kUpProj,    bias_of(kUpProj, "", When::kMlpBias),
    kInputNorm, kPostAttentionNorm,
};

constexpr Family family(std::string_view name, HeadDim head_dim,
                        std::span<const ModuleRule> layer) {
  return {.name = name,
          .head_dim = head_dim,
          .before = kBefore,
          .layer = layer,
          .after = kAfter,
          .dropped = kRotaryBuffers};
}

constexpr OtherPart kVision[] = {{"vision_tower.", "vision part"},
                                 {"model.vision_tower.", "vision part"},
                                 {"multi_modal_projector.", "vision part"},
                                 {"model.multi_modal_projector.", "vision part"}};

constexpr Family mistral3() {
  Family made = family("mistral3", HeadDim::kOptional, kPlainLayer);
  made.source_prefixes = kTextPrefixes;
  made.output_prefix = kTextOutputPrefix;
  made.other_parts = kVision;
  return made;
}

}  // namespace

constinit const Family kSmollm3 = family("smollm3", HeadDim::kOptional, kBiasedLayer);
constinit const Family kSeedOss = family("seed_oss", HeadDim::kRequired, kSeedLayer);
constinit const Family kErnie4_5 = family("ernie4_5", HeadDim::kRequired, kPlainLayer);
constinit const Family kMistral3 = mistral3();

}  // namespace sluice::families
