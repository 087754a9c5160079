// Kimi K2.5: Kimi K2 as the language model of a model that sees. Source: sanitize() of mlx_lm
// 0.32's kimi_k25, which leaves the other parts out and hands the rest to deepseek_v3's.
#include "families/latent_rules.h"

namespace sluice::families {
namespace {

constexpr NamePrefix kPrefixes[] = {{"language_model.", ""}};
constexpr OtherPart kParts[] = {{"vision_tower.", "vision part"},
                                {"vision_model.", "vision part"},
                                {"mm_projector.", "vision part"},
                                {"multi_modal_projector.", "vision part"}};

constexpr Family language_model() {
  Family family = latent::family("kimi_k25", latent::kCorrectedLayer);
  family.source_prefixes = kPrefixes;
  family.output_prefix = "language_model.";
  family.other_parts = kParts;
  return family;
}

}  // namespace

constinit const Family kKimiK25 = language_model();

}  // namespace sluice::families
