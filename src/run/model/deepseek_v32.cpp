// DeepSeek V3.2, and GLM-5 under the same layout: DeepSeek V3, whose layers look at the tokens that
// an indexer chooses. Which dimensions the indexer turns together is the family's.
#include "model/latent.h"

namespace sluice::model {
namespace {

// transformers' of its layer norms; mlx_lm leaves it to its own default.
constexpr float kIndexNormEps = 1e-6f, kMlxIndexNormEps = 1e-5f;

Status read_indexer(const Json& json, const std::string& label, bool interleaved,
                    ModelConfig& out) {
  SLUICE_ASSIGN(const int64_t top_k, json_int(json, "index_topk", 1, 1 << 20, label));
  out.index_top_k = static_cast<uint32_t>(top_k);
  const bool mlx = out.compat == Compat::kMlx;
  out.index_norm_eps = mlx ? kMlxIndexNormEps : kIndexNormEps;
  RopeConfig rope = out.ropes[0];
  if (mlx) {
    SLUICE_ASSIGN(interleaved, flag_or(json, "indexer_rope_interleave", interleaved, label));
  }
  rope.style = interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalf;
  rope.first = 0;
  if (out.dims.index_head_dim < out.dims.qk_rope_head_dim)
    return fail(ErrorCode::kCorrupt, "{}: index_head_dim {} is less than qk_rope_head_dim {}",
                label, out.dims.index_head_dim, out.dims.qk_rope_head_dim);
  out.index_rope = static_cast<uint32_t>(out.ropes.size());
  out.ropes.push_back(std::move(rope));
  out.index_kv = {.heads = 1,
                  .key_dim = static_cast<uint32_t>(out.dims.index_head_dim),
                  .value_dim = 0,
                  .values_in_keys = true};
  for (size_t layer = 0; layer < out.layers.size(); ++layer)
    out.layers[layer].index_cache = static_cast<uint32_t>(out.layers.size() + layer);
  return {};
}

Status configure(const Json& json, const std::string& label, const LatentDefaults& defaults,
                 bool interleaved, ModelConfig& out) {
  SLUICE_TRY(read_latent_attention(json, label, defaults, out));
  SLUICE_TRY(read_indexer(json, label, interleaved, out));
  return read_corrected_router(json, label, defaults, out);
}

Status configure_deepseek(const Json& json, const std::string& label, ModelConfig& out) {
  return configure(json, label, {.routed_scaling_factor = 2.5f}, false, out);
}

Status configure_glm(const Json& json, const std::string& label, ModelConfig& out) {
  return configure(json, label, {.rope_theta = 1e6, .routed_scaling_factor = 2.5f}, true, out);
}

}  // namespace

constinit const Architecture kDeepseekV32 = {"deepseek_v32", configure_deepseek};
constinit const Architecture kGlmMoeDsa = {"glm_moe_dsa", configure_glm};

}  // namespace sluice::model
