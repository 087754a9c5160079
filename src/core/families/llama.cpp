// Llama 2, 3 and 3.x, SmolLM2 and others of model_type llama; Mistral 7B and its successors, which
// mlx_lm runs with the same code. llama.cpp interleaves the rows of q and k within each head.
#include "families/common_rules.h"

namespace sluice::families {
namespace {

using namespace common;

constexpr ModuleRule kLlamaQ = interleaved(kQProj);
constexpr ModuleRule kLlamaK = interleaved(kKProj);

constexpr ModuleRule kLayer[] = {
    kLlamaQ,    bias_of(kLlamaQ, "blk.{L}.attn_q.bias", When::kAttentionBias),
    kLlamaK,    bias_of(kLlamaK, "blk.{L}.attn_k.bias", When::kAttentionBias),
    kVProj,     bias_of(kVProj, "blk.{L}.attn_v.bias", When::kAttentionBias),
    kOProj,     bias_of(kOProj, "blk.{L}.attn_output.bias", When::kAttentionBias),
    kGateProj,  bias_of(kGateProj, "blk.{L}.ffn_gate.bias", When::kMlpBias),
    kDownProj,  bias_of(kDownProj, "blk.{L}.ffn_down.bias", When::kMlpBias),
    kUpProj,    bias_of(kUpProj, "blk.{L}.ffn_up.bias", When::kMlpBias),
    kInputNorm, kPostAttentionNorm,
};

// The llama3 rope factors, which the configuration's rope_scaling describes as well.
constexpr std::string_view kGgufDropped[] = {"rope_freqs.weight"};

constexpr Family family(std::string_view name) {
  return {.name = name,
          .head_dim = HeadDim::kOptional,
          .before = kBefore,
          .layer = kLayer,
          .after = kAfter,
          .dropped = kRotaryBuffers,
          .gguf_dropped = kGgufDropped};
}

}  // namespace

constinit const Family kLlama = family("llama");
constinit const Family kMistral = family("mistral");

}  // namespace sluice::families
