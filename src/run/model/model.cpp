#include "model/model.h"

#include "model/attention.h"

namespace sluice::model {

// h += attention(norm(h)); h += feed_forward(norm(h)).
struct Model::Layer {
  Weight input_norm, post_attention_norm;
  Attention attention;
  std::unique_ptr<FeedForward> feed_forward;
};

namespace {

Workspace make_workspace(const ModelConfig& config, Backend& backend) {
  const families::ModelDims& dims = config.dims;
  Workspace space;
  space.hidden = backend.tensor(dims.hidden_size);
  space.normed = backend.tensor(dims.hidden_size);
  space.delta = backend.tensor(dims.hidden_size);
  space.q = backend.tensor(dims.heads * dims.head_dim);
  space.k = backend.tensor(dims.kv_heads * dims.head_dim);
  space.v = backend.tensor(dims.kv_heads * dims.head_dim);
  space.attended = backend.tensor(dims.heads * dims.head_dim);
  bool dense = false;
  for (uint64_t layer = 0; layer < dims.layers; ++layer) dense |= !dims.sparse_layer(layer);
  if (dense) {
    space.gate = backend.tensor(dims.intermediate_size);
    space.up = backend.tensor(dims.intermediate_size);
  }
  if (config.sparse()) {
    const size_t top_k = config.experts_per_token;
    space.router_logits = backend.tensor(dims.experts);
    space.slot_gate = backend.tensor(dims.expert_intermediate_size, top_k);
    space.slot_up = backend.tensor(dims.expert_intermediate_size, top_k);
    space.slots = backend.tensor(dims.hidden_size, top_k);
  }
  space.last = backend.logits_tensor(dims.hidden_size);
  space.logits = backend.logits_tensor(dims.vocab_size);
  return space;
}

}  // namespace

Model::Model(const ModelConfig& config, Backend& backend, size_t context)
    : config_(config),
      backend_(backend),
      space_(std::make_unique<Workspace>(make_workspace(config, backend))),
      rope_(backend.rope_table(rope_rule(config.rope, context))),
      embedding_(required(backend, "model.embed_tokens.weight")),
      norm_(required(backend, "model.norm.weight")),
      head_(config.tied ? embedding_ : required(backend, "lm_head.weight")) {
  for (uint32_t layer = 0; layer < config.dims.layers; ++layer)
    layers_.push_back({required(backend, layer_name(layer, "input_layernorm.weight")),
                       required(backend, layer_name(layer, "post_attention_layernorm.weight")),
                       Attention(config, backend, layer),
                       config.dims.sparse_layer(layer)
                           ? sparse_feed_forward(config, backend, layer, *space_)
                           : dense_feed_forward(backend, layer, *space_)});
  for (size_t layer = 1; layer < layers_.size(); ++layer)
    layers_[layer - 1].feed_forward->set_next(layers_[layer].feed_forward.get());
}

Model::~Model() = default;

void Model::run_layer(Layer& layer, const Batch& batch) {
  const Workspace& s = *space_;
  backend_.rms_norm(s.hidden, layer.input_norm, config_.rms_norm_eps, s.normed);
  layer.attention.run(backend_, s, rope_, batch, s.normed, s.delta);
  backend_.add(s.hidden, s.delta);
  backend_.rms_norm(s.hidden, layer.post_attention_norm, config_.rms_norm_eps, s.normed);
  layer.feed_forward->run(backend_, s.normed, s.delta);
  backend_.add(s.hidden, s.delta);
}

void Model::forward(const Batch& batch) {
  backend_.embed(embedding_, batch.tokens, space_->hidden);
  for (Layer& layer : layers_) run_layer(layer, batch);
}

std::span<const float> Model::logits(std::span<const uint32_t> rows) {
  const Workspace& s = *space_;
  backend_.gather(s.hidden, rows, s.last);
  backend_.rms_norm(s.last, norm_, config_.rms_norm_eps, s.last);
  const Product head[] = {{.weight = head_, .out = s.logits}};
  backend_.qmatmul(s.last, head);
  return backend_.read(s.logits);
}

bool Model::finite() { return backend_.all_finite(space_->hidden); }

std::optional<int> Model::find_non_finite(const Batch& batch) {
  backend_.embed(embedding_, batch.tokens, space_->hidden);
  if (!finite()) return -1;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    run_layer(layers_[layer], batch);
    if (!finite()) return static_cast<int>(layer);
  }
  return std::nullopt;
}

}  // namespace sluice::model
