#include "model/model.h"

#include <algorithm>

namespace sluice::model {

// h += mixer(norm(h)); h += feed_forward(norm(h)); norms behind the halves where there are some.
struct Model::Layer {
  Norm mixer_norm, feed_forward_norm;
  std::optional<Norm> behind_mixer, behind_feed_forward;
  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<FeedForward> feed_forward;
};

namespace {

GatedSpace make_gated_space(const ModelConfig& config, Backend& backend, size_t width) {
  GatedSpace space{.width = width, .gate = backend.tensor(width), .up = backend.tensor(width)};
  if (config.fused_projections) space.both = backend.tensor(2 * width);
  return space;
}

void add_attention_space(const ModelConfig& config, Backend& backend, Workspace& space) {
  const families::ModelDims& dims = config.dims;
  const size_t q = dims.heads * dims.head_dim, kv = dims.kv_heads * dims.head_dim;
  space.q = backend.tensor(q);
  space.k = backend.tensor(kv);
  space.v = backend.tensor(kv);
  if (config.fused_projections) space.qkv = backend.tensor(q + 2 * kv);
  space.attended = backend.tensor(q);
  if (!config.attention_gate) return;
  space.gated_q = backend.tensor(2 * q);
  space.attention_gate = backend.tensor(q);
}

void add_linear_space(const ModelConfig& config, Backend& backend, LinearSpace& space) {
  using families::Dim;
  const families::ModelDims& dims = config.dims;
  const bool fused = config.fused_linear_projections;
  const size_t keys = dims.linear_key_heads * dims.linear_key_head_dim;
  const size_t values = dims.length(Dim::kLinearValueRows), heads = dims.linear_value_heads;
  space.qkv = backend.tensor(dims.length(fused ? Dim::kLinearQkvzRows : Dim::kLinearQkvRows));
  if (fused) space.ba = backend.tensor(2 * heads);
  space.q = backend.tensor(keys);
  space.k = backend.tensor(keys);
  space.v = backend.tensor(values);
  space.z = backend.tensor(values);
  space.b = backend.tensor(heads);
  space.a = backend.tensor(heads);
  space.out = backend.tensor(values);
}

void add_latent_space(const ModelConfig& config, Backend& backend, LatentSpace& space) {
  const families::ModelDims& dims = config.dims;
  const size_t key = dims.kv_lora_rank + dims.qk_rope_head_dim;
  if (dims.q_lora_rank > 0) space.q_low = backend.tensor(dims.q_lora_rank);
  space.q = backend.tensor(dims.heads * (dims.qk_nope_head_dim + dims.qk_rope_head_dim));
  space.key = backend.tensor(key);
  space.query = backend.tensor(dims.heads * key);
  space.attended = backend.tensor(dims.heads * dims.kv_lora_rank);
  space.values = backend.tensor(dims.heads * dims.v_head_dim);
  if (config.index_top_k == 0) return;
  space.index_query = backend.tensor(dims.index_heads * dims.index_head_dim);
  space.index_key = backend.tensor(dims.index_head_dim);
  space.index_weights = backend.tensor(dims.index_heads);
}

void add_expert_space(const ModelConfig& config, Backend& backend, Workspace& space) {
  const families::ModelDims& dims = config.dims;
  const size_t top_k = config.router.top_k;
  space.router_logits = backend.tensor(dims.experts);
  space.slot_gate = backend.tensor(dims.expert_intermediate_size, top_k);
  space.slot_up = backend.tensor(dims.expert_intermediate_size, top_k);
  space.slots = backend.tensor(dims.hidden_size, top_k);
  if (config.scales_expert_input) space.slot_input = backend.tensor(dims.hidden_size, top_k);
  if (dims.shared_intermediate_size == 0) return;
  space.shared = make_gated_space(config, backend, dims.shared_intermediate_size);
  space.shared_out = backend.tensor(dims.hidden_size);
  if (!config.expert_names.shared_gate.empty()) space.shared_gate = backend.tensor(1);
}

Workspace make_workspace(const ModelConfig& config, Backend& backend) {
  const families::ModelDims& dims = config.dims;
  Workspace space;
  space.hidden = backend.tensor(dims.hidden_size);
  space.normed = backend.tensor(dims.hidden_size);
  space.delta = backend.tensor(dims.hidden_size);
  const auto mixes_by = [&](MixerKind kind) {
    return std::ranges::any_of(config.layers,
                               [=](const LayerConfig& layer) { return layer.mixer == kind; });
  };
  if (mixes_by(MixerKind::kAttention)) add_attention_space(config, backend, space);
  if (mixes_by(MixerKind::kLatentAttention)) add_latent_space(config, backend, space.latent);
  if (config.mixers(MixerKind::kGatedDelta) > 0) add_linear_space(config, backend, space.linear);
  bool dense = false;
  for (const LayerConfig& layer : config.layers) dense |= !layer.sparse;
  if (dense) space.dense = make_gated_space(config, backend, dims.intermediate_size);
  if (config.sparse()) add_expert_space(config, backend, space);
  space.last = backend.logits_tensor(dims.hidden_size);
  space.logits = backend.logits_tensor(dims.vocab_size);
  return space;
}

std::unique_ptr<Mixer> make_mixer(const LayerContext& context) {
  switch (context.settings().mixer) {
    case MixerKind::kAttention: return attention_mixer(context);
    case MixerKind::kLatentAttention: return latent_attention_mixer(context);
    case MixerKind::kGatedDelta: return gated_delta_mixer(context);
  }
  SLUICE_CHECK(false);
}

}  // namespace

Model::Model(const ModelConfig& config, Backend& backend, size_t context)
    : config_(config),
      backend_(backend),
      space_(std::make_unique<Workspace>(make_workspace(config, backend))),
      embedding_(required(backend, config.prefix + "embed_tokens.weight")),
      norm_(config, backend, config.prefix + "norm"),
      head_{.weight = config.tied ? embedding_ : required(backend, config.head + ".weight"),
            .bias = config.tied ? Weight::kNone : backend.weight(config.head + ".bias"),
            .out = space_->logits} {
  for (const RopeConfig& rope : config_.ropes)
    ropes_.push_back(backend.rope_table(rope_rule(rope, context)));
  LayerContext parts{config_, backend_, *space_, ropes_};
  for (; parts.layer < config_.layers.size(); ++parts.layer) {
    const bool sandwich = config.sandwich_norms;
    Layer layer{.mixer_norm = parts.norm("input_layernorm"),
                .feed_forward_norm =
                    parts.norm(sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
                .behind_mixer = {},
                .behind_feed_forward = {},
                .mixer = make_mixer(parts),
                .feed_forward = nullptr};
    if (sandwich) {
      layer.behind_mixer = parts.norm("post_attention_layernorm");
      layer.behind_feed_forward = parts.norm("post_feedforward_layernorm");
    }
    layer.feed_forward = parts.settings().sparse
                             ? sparse_feed_forward(parts, layer.feed_forward_norm)
                             : dense_feed_forward(parts, config.dense_path, space_->dense);
    layers_.push_back(std::move(layer));
  }
  for (size_t layer = 1; layer < layers_.size(); ++layer)
    layers_[layer - 1].feed_forward->set_next(layers_[layer].feed_forward.get());
}

Model::~Model() = default;

void Model::embed(const Batch& batch) {
  backend_.embed(embedding_, batch.tokens, space_->hidden);
  if (config_.embedding_multiplier != 1)
    backend_.scale(space_->hidden, config_.embedding_multiplier);
}

void Model::add_to_hidden(Tensor delta) {
  if (config_.residual_multiplier == 1)
    backend_.add(space_->hidden, delta);
  else
    backend_.scale_add(space_->hidden, config_.residual_multiplier, delta);
}

void Model::run_layer(Layer& layer, const Batch& batch) {
  const Workspace& s = *space_;
  layer.mixer_norm.run(backend_, s.hidden, s.normed);
  layer.mixer->run(backend_, batch, s.normed, s.delta);
  if (layer.behind_mixer) layer.behind_mixer->run(backend_, s.delta, s.delta);
  add_to_hidden(s.delta);
  layer.feed_forward_norm.run(backend_, s.hidden, s.normed);
  layer.feed_forward->run(backend_, s.normed, s.delta);
  if (layer.behind_feed_forward) layer.behind_feed_forward->run(backend_, s.delta, s.delta);
  add_to_hidden(s.delta);
}

void Model::forward(const Batch& batch) {
  embed(batch);
  for (Layer& layer : layers_) run_layer(layer, batch);
}

std::span<const float> Model::logits(std::span<const uint32_t> rows) {
  const Workspace& s = *space_;
  backend_.gather(s.hidden, rows, s.last);
  norm_.run(backend_, s.last, s.last);
  backend_.qmatmul(s.last, {&head_, 1});
  if (config_.logits_multiplier != 1) backend_.scale(s.logits, config_.logits_multiplier);
  if (config_.logits_softcap > 0) backend_.softcap(s.logits, config_.logits_softcap);
  return backend_.read(s.logits);
}

bool Model::finite() { return backend_.all_finite(space_->hidden); }

std::optional<int> Model::find_non_finite(const Batch& batch) {
  embed(batch);
  if (!finite()) return -1;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    run_layer(layers_[layer], batch);
    if (!finite()) return static_cast<int>(layer);
  }
  return std::nullopt;
}

}  // namespace sluice::model
