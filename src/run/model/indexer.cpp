// DeepSeek sparse attention (DeepSeek-V3.2, 2025). Each layer keeps one more small key per token.
// Small queries, made from the same low-rank vector as the layer's own, score all earlier tokens by
//   Σ_h w_h · relu(q_h · k),
// and attention looks at the top_k best alone.
#include "model/indexer.h"

namespace sluice::model {

Indexer::Indexer(const LayerContext& context)
    : space_(context.space.latent),
      rule_{.cache = context.settings().index_cache,
            .heads = static_cast<uint32_t>(context.config.dims.index_heads),
            .key_dim = static_cast<uint32_t>(context.config.dims.index_head_dim),
            .top_k = context.config.index_top_k},
      query_(context.product("self_attn.indexer.wq_b", space_.index_query)),
      key_(context.product("self_attn.indexer.wk", space_.index_key)),
      weights_(context.product("self_attn.indexer.weights_proj", space_.index_weights)),
      norm_(context.weight("self_attn.indexer.k_norm.weight")),
      norm_bias_(context.weight_or_none("self_attn.indexer.k_norm.bias")),
      epsilon_(context.config.index_norm_eps),
      rope_(context.ropes[context.config.index_rope]) {}

void Indexer::run(Backend& backend, const Batch& batch, Tensor x) const {
  const Product of_x[] = {key_, weights_};
  backend.qmatmul(x, of_x);
  backend.layer_norm(space_.index_key, norm_, norm_bias_, epsilon_, space_.index_key);
  backend.rope(space_.index_query, rule_.heads, rope_, batch);
  backend.rope(space_.index_key, 1, rope_, batch);
  backend.select_keys(rule_, space_.index_query, space_.index_key, space_.index_weights, batch);
}

}  // namespace sluice::model
