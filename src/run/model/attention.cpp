#include "model/attention.h"

#include <cmath>

namespace sluice::model {

std::string layer_name(uint32_t layer, std::string_view parameter) {
  return fmt::format("model.layers.{}.{}", layer, parameter);
}

Weight required(Backend& backend, std::string_view name) {
  const Weight weight = backend.weight(name);
  SLUICE_CHECK(weight != Weight::kNone);
  return weight;
}

Attention::Attention(const ModelConfig& config, Backend& backend, uint32_t layer)
    : epsilon_(config.rms_norm_eps),
      rule_{.layer = layer,
            .heads = static_cast<uint32_t>(config.dims.heads),
            .kv_heads = static_cast<uint32_t>(config.dims.kv_heads),
            .head_dim = static_cast<uint32_t>(config.dims.head_dim),
            .scale = 1 / std::sqrt(static_cast<float>(config.dims.head_dim)),
            .window = config.windows[layer]} {
  const auto weight = [&](std::string_view name) {
    return required(backend, layer_name(layer, name));
  };
  const auto bias = [&](std::string_view name) { return backend.weight(layer_name(layer, name)); };
  q_ = weight("self_attn.q_proj.weight");
  k_ = weight("self_attn.k_proj.weight");
  v_ = weight("self_attn.v_proj.weight");
  o_ = weight("self_attn.o_proj.weight");
  q_bias_ = bias("self_attn.q_proj.bias");
  k_bias_ = bias("self_attn.k_proj.bias");
  v_bias_ = bias("self_attn.v_proj.bias");
  o_bias_ = bias("self_attn.o_proj.bias");
  if (!config.qk_norm) return;
  q_norm_ = weight("self_attn.q_norm.weight");
  k_norm_ = weight("self_attn.k_norm.weight");
}

void Attention::run(Backend& backend, const Workspace& space, RopeTable rope, const Batch& batch,
                    Tensor x, Tensor out) const {
  const Product projections[] = {
      {q_, q_bias_, space.q}, {k_, k_bias_, space.k}, {v_, v_bias_, space.v}};
  backend.qmatmul(x, projections);
  if (q_norm_ != Weight::kNone) {
    backend.rms_norm_heads(space.q, rule_.heads, q_norm_, epsilon_);
    backend.rms_norm_heads(space.k, rule_.kv_heads, k_norm_, epsilon_);
  }
  backend.rope(space.q, rule_.heads, rope, batch);
  backend.rope(space.k, rule_.kv_heads, rope, batch);
  backend.store_kv(rule_, space.k, space.v, batch);
  backend.attention(rule_, space.q, batch, space.attended);
  const Product output[] = {{o_, o_bias_, out}};
  backend.qmatmul(space.attended, output);
}

}  // namespace sluice::model
