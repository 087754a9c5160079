// Gemma 3: a norm before and behind either half of a layer, norms of q and k, and a head only where
// it differs from the embedding. Norms stay as they are stored, less one: mlx_lm adds it at run
// time. gemma3_text is the language model alone, gemma3 that of a model that sees, whose
// text_config leaves most of its numbers to transformers. Source: mlx_lm 0.32's gemma3 and
// gemma3_text.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule norm(std::string_view path) {
  return {.path = path, .role = Role::kNorm, .shape = {Dim::kHidden}};
}

constexpr ModuleRule kLayer[] = {
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
    norm("model.layers.{L}.pre_feedforward_layernorm"),
    norm("model.layers.{L}.post_feedforward_layernorm"),
};

// transformers 4 and 5 name the parts in different orders.
constexpr NamePrefix kPrefixes[] = {{"language_model.", ""}, {"model.language_model.", "model."}};
constexpr OtherPart kOtherParts[] = {{"vision_tower.", "vision part"},
                                     {"model.vision_tower.", "vision part"},
                                     {"multi_modal_projector.", "vision part"},
                                     {"model.multi_modal_projector.", "vision part"}};

constexpr uint64_t kWindowPattern = 6;
constexpr ConfigDefault kTextDefaults[] = {{"num_attention_heads", 8},
                                           {"num_key_value_heads", 4},
                                           {"head_dim", 256},
                                           {"vocab_size", 262208}};

}  // namespace

constinit const Family kGemma3Text = {.name = "gemma3_text",
                                      .head_dim = HeadDim::kRequired,
                                      .before = kBefore,
                                      .layer = kLayer,
                                      .after = kAfter,
                                      .dropped = kRotaryBuffers,
                                      .tied_by_default = true,
                                      .window_pattern = kWindowPattern};
constinit const Family kGemma3 = {.name = "gemma3",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kAfter,
                                  .dropped = kRotaryBuffers,
                                  .tied_by_default = true,
                                  .source_prefixes = kPrefixes,
                                  .output_prefix = "language_model.",
                                  .other_parts = kOtherParts,
                                  .defaults = kTextDefaults,
                                  .vocab_beside_text = true,
                                  .window_pattern = kWindowPattern};

}  // namespace sluice::families
