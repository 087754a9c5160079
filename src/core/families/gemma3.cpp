// Gemma 3: a norm before and behind either half of a layer, norms of q and k, and a head only where
// it differs from the embedding. Norms stay as they are stored, less one: mlx_lm adds it at run
// time. gemma3_text is the language model alone, gemma3 that of a model that sees, whose
// text_config leaves most of its numbers to transformers. Source: mlx_lm 0.32's gemma3 and
// gemma3_text.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

// llama.cpp's converter adds the one that norms are stored without.
constexpr ModuleRule norm(ModuleRule rule, std::string_view gguf) {
  rule.gguf = gguf;
  rule.gguf_step = numerics::ValueStep::kSubtractOne;
  return rule;
}
constexpr ModuleRule norm(std::string_view path, std::string_view gguf) {
  return norm({.path = path, .role = Role::kNorm, .shape = {Dim::kHidden}}, gguf);
}

constexpr ModuleRule kLayer[] = {
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    norm(kQNorm, "blk.{L}.attn_q_norm.weight"),
    norm(kKNorm, "blk.{L}.attn_k_norm.weight"),
    kGateProj,
    kDownProj,
    kUpProj,
    norm(kInputNorm, "blk.{L}.attn_norm.weight"),
    norm(kPostAttentionNorm, "blk.{L}.post_attention_norm.weight"),
    norm("model.layers.{L}.pre_feedforward_layernorm", "blk.{L}.ffn_norm.weight"),
    norm("model.layers.{L}.post_feedforward_layernorm", "blk.{L}.post_ffw_norm.weight"),
};
constexpr ModuleRule kBehind[] = {norm(kFinalNorm, "output_norm.weight"), kLmHead};

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
                                      .after = kBehind,
                                      .dropped = kRotaryBuffers,
                                      .tied_by_default = true,
                                      .window_pattern = kWindowPattern};
constinit const Family kGemma3 = {.name = "gemma3",
                                  .head_dim = HeadDim::kRequired,
                                  .before = kBefore,
                                  .layer = kLayer,
                                  .after = kBehind,
                                  .dropped = kRotaryBuffers,
                                  .tied_by_default = true,
                                  .source_prefixes = kPrefixes,
                                  .output_prefix = "language_model.",
                                  .other_parts = kOtherParts,
                                  .defaults = kTextDefaults,
                                  .vocab_beside_text = true,
                                  .window_pattern = kWindowPattern};

}  // namespace sluice::families
