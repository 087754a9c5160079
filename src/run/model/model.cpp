#include "model/model.h"

#include <algorithm>

namespace sluice::model {

// h += mixer(norm(h)); h += feed_forward(norm(h)); norms behind the halves where there are some. A
// layer may be one half alone.
struct Model::Layer {
  Norm mixer_norm, feed_forward_norm;
  std::optional<Norm> behind_mixer, behind_feed_forward;
  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<FeedForward> feed_forward;
  std::optional<LayerInput> input;
  Weight scalar = Weight::kNone;
};

namespace {

GatedSpace make_gated_space(const ModelConfig& config, Backend& backend, size_t width) {
  GatedSpace space{.width = width, .gate = backend.tensor(width)};
  if (config.gated) space.up = backend.tensor(width);
  if (config.fused_projections) space.both = backend.tensor(2 * width);
  return space;
}

AttentionSpace make_attention_space(const ModelConfig& config, Backend& backend,
                                    const KvDims& dims) {
  const size_t q = config.dims.heads * dims.key_dim, kv = size_t{dims.heads} * dims.key_dim;
  AttentionSpace space{.kv = dims};
  space.q = backend.tensor(q);
  space.k = backend.tensor(kv);
  space.v = backend.tensor(kv);
  if (config.fused_projections) space.qkv = backend.tensor(q + 2 * kv);
  space.attended = backend.tensor(q);
  if (!config.attention_gate) return space;
  space.gated_q = backend.tensor(2 * q);
  space.gate = backend.tensor(q);
  return space;
}

void add_mamba_space(const ModelConfig& config, Backend& backend, MambaSpace& space) {
  using families::Dim;
  const families::ModelDims& dims = config.dims;
  const size_t inner = dims.length(Dim::kMambaInner), group = dims.mamba_groups * dims.mamba_state;
  space.in = backend.tensor(dims.length(Dim::kMambaInRows));
  space.gate = backend.tensor(inner);
  space.x = backend.tensor(inner);
  space.out = backend.tensor(inner);
  space.b = backend.tensor(group);
  space.c = backend.tensor(group);
  space.dt = backend.tensor(dims.mamba_heads);
  space.decay = backend.tensor(dims.mamba_heads);
}

void add_layer_input_space(const ModelConfig& config, Backend& backend, LayerInputSpace& space) {
  const size_t size = config.dims.layer_input_size;
  space.all = backend.tensor(config.dims.layers * size);
  space.projected = backend.tensor(config.dims.layers * size);
  space.input = backend.tensor(size);
  space.gate = backend.tensor(size);
}

void add_linear_space(const ModelConfig& config, Backend& backend, LinearSpace& space) {
  using families::Dim;
  const families::ModelDims& dims = config.dims;
  const bool fused = config.fused_linear_projections;
  const size_t keys = dims.linear_key_heads * dims.linear_key_head_dim;
  const size_t values = dims.length(Dim::kLinearValueRows), heads = dims.linear_value_heads;
  space.qkv = backend.tensor(dims.length(fused ? Dim::kLinearQkvzRows : Dim::kLinearQkvRows));
  if (config.fused_linear_gates) space.ba = backend.tensor(2 * heads);
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
  const ExpertNames& names = config.expert_names;
  const size_t top_k = config.router.top_k;
  const size_t width = dims.length(families::Dim::kExpertColumns);
  if (!names.router_norm.empty()) space.router_input = backend.tensor(dims.hidden_size);
  if (config.dense_beside_experts) space.beside = backend.tensor(dims.hidden_size);
  space.router_logits = backend.tensor(dims.experts);
  if (!names.into_latent.empty()) {
    space.latent_in = backend.tensor(width);
    space.latent_out = backend.tensor(width);
  }
  space.slot_gate = backend.tensor(dims.expert_intermediate_size, top_k);
  if (config.gated) space.slot_up = backend.tensor(dims.expert_intermediate_size, top_k);
  space.slots = backend.tensor(width, top_k);
  if (config.scales_expert_input) space.slot_input = backend.tensor(dims.hidden_size, top_k);
  if (dims.shared_intermediate_size == 0) return;
  space.shared = make_gated_space(config, backend, dims.shared_intermediate_size);
  space.shared_out = backend.tensor(dims.hidden_size);
  if (!names.shared_gate.empty()) space.shared_gate = backend.tensor(1);
}

Workspace make_workspace(const ModelConfig& config, Backend& backend) {
  const families::ModelDims& dims = config.dims;
  Workspace space;
  space.hidden = backend.tensor(dims.hidden_size);
  space.normed = backend.tensor(dims.hidden_size);
  space.delta = backend.tensor(dims.hidden_size);
  const auto has = [](const auto& spaces, const auto& size, auto member) {
    return std::ranges::find(spaces, size, member) != spaces.end();
  };
  for (const LayerConfig& layer : config.layers) {
    if (layer.mixer == MixerKind::kAttention &&
        !has(space.attention, layer.kv, &AttentionSpace::kv))
      space.attention.push_back(make_attention_space(config, backend, layer.kv));
    const bool dense = layer.feeds_forward && (!layer.sparse || config.dense_beside_experts);
    if (dense && !has(space.dense, layer.intermediate_size, &GatedSpace::width))
      space.dense.push_back(make_gated_space(config, backend, layer.intermediate_size));
  }
  if (config.has_mixer(MixerKind::kLatentAttention))
    add_latent_space(config, backend, space.latent);
  if (config.has_mixer(MixerKind::kGatedDelta)) add_linear_space(config, backend, space.linear);
  if (config.has_mixer(MixerKind::kMamba)) add_mamba_space(config, backend, space.mamba);
  if (config.layer_inputs) add_layer_input_space(config, backend, space.layer_input);
  if (config.sparse()) add_expert_space(config, backend, space);
  space.last = backend.logits_tensor(dims.hidden_size);
  space.logits = backend.logits_tensor(dims.vocab_size);
  return space;
}

std::unique_ptr<Mixer> make_mixer(const LayerContext& context) {
  switch (context.settings().mixer) {
    case MixerKind::kNone: return nullptr;
    case MixerKind::kAttention: return attention_mixer(context);
    case MixerKind::kLatentAttention: return latent_attention_mixer(context);
    case MixerKind::kGatedDelta: return gated_delta_mixer(context);
    case MixerKind::kMamba: return mamba_mixer(context);
  }
  SLUICE_CHECK(false);
}

std::unique_ptr<FeedForward> make_feed_forward(const LayerContext& context, const Norm& norm) {
  const ModelConfig& config = context.config;
  const LayerConfig& layer = context.settings();
  if (layer.sparse && config.dense_beside_experts) return beside_feed_forward(context);
  if (layer.sparse) return sparse_feed_forward(context, norm);
  return dense_feed_forward(context, config.dense_path,
                            context.space.dense_of(layer.intermediate_size));
}

}  // namespace

Model::Model(const ModelConfig& config, Backend& backend, size_t context)
    : config_(config),
      backend_(backend),
      space_(std::make_unique<Workspace>(make_workspace(config, backend))),
      embedding_(required(backend, fmt::format("{}{}.weight", config.prefix, config.embedding))),
      norm_(config, backend, fmt::format("{}{}", config.prefix, config.final_norm)),
      head_{.weight = config.tied ? embedding_ : required(backend, config.head + ".weight"),
            .bias = config.tied ? Weight::kNone : backend.weight(config.head + ".bias"),
            .out = space_->logits} {
  for (const RopeConfig& rope : config_.ropes)
    ropes_.push_back(backend.rope_table(rope_rule(rope, context)));
  if (config_.layer_inputs) layer_inputs_.emplace(config_, backend_, *space_);
  LayerContext parts{config_, backend_, *space_, ropes_};
  for (; parts.layer < config_.layers.size(); ++parts.layer) layers_.push_back(make_layer(parts));
  FeedForward* before = nullptr;
  for (Layer& layer : layers_) {
    if (layer.feed_forward == nullptr) continue;
    if (before != nullptr) before->set_next(layer.feed_forward.get());
    before = layer.feed_forward.get();
  }
}

Model::Layer Model::make_layer(const LayerContext& parts) {
  const ModelConfig& config = parts.config;
  Layer layer;
  layer.mixer = make_mixer(parts);
  if (layer.mixer != nullptr) layer.mixer_norm = parts.norm(config.mixer_norm);
  if (parts.settings().feeds_forward) {
    layer.feed_forward_norm =
        parts.norm(config.sandwich_norms ? "pre_feedforward_layernorm" : config.feed_forward_norm);
    layer.feed_forward = make_feed_forward(parts, layer.feed_forward_norm);
  }
  if (config.sandwich_norms) {
    layer.behind_mixer = parts.norm("post_attention_layernorm");
    layer.behind_feed_forward = parts.norm("post_feedforward_layernorm");
  }
  if (config.layer_inputs) layer.input.emplace(parts);
  if (config.layer_scalar) layer.scalar = parts.weight("layer_scalar");
  return layer;
}

Model::~Model() = default;

void Model::embed(const Batch& batch) {
  backend_.embed(embedding_, batch.tokens, space_->hidden);
  if (config_.embedding_multiplier != 1)
    backend_.scale(space_->hidden, config_.embedding_multiplier);
  if (layer_inputs_) layer_inputs_->run(backend_, batch.tokens);
}

void Model::add_to_hidden(Tensor delta) {
  if (config_.residual_multiplier == 1)
    backend_.add(space_->hidden, delta);
  else
    backend_.scale_add(space_->hidden, config_.residual_multiplier, delta);
}

void Model::run_layer(Layer& layer, const Batch& batch) {
  const Workspace& s = *space_;
  if (layer.mixer != nullptr) {
    layer.mixer_norm.run(backend_, s.hidden, s.normed);
    layer.mixer->run(backend_, batch, s.normed, s.delta);
    if (layer.behind_mixer) layer.behind_mixer->run(backend_, s.delta, s.delta);
    add_to_hidden(s.delta);
  }
  if (layer.feed_forward != nullptr) {
    layer.feed_forward_norm.run(backend_, s.hidden, s.normed);
    layer.feed_forward->run(backend_, s.normed, s.delta);
    if (layer.behind_feed_forward) layer.behind_feed_forward->run(backend_, s.delta, s.delta);
    add_to_hidden(s.delta);
  }
  if (layer.input) layer.input->run(backend_);
  if (layer.scalar != Weight::kNone) backend_.multiply(s.hidden, layer.scalar);
}

void Model::forward(const Batch& batch) {
  embed(batch);
  for (Layer& layer : layers_) run_layer(layer, batch);
}

void Model::norm_last(std::span<const uint32_t> rows) {
  const Workspace& s = *space_;
  backend_.gather(s.hidden, rows, s.last);
  norm_.run(backend_, s.last, s.last);
}

std::span<const float> Model::states(std::span<const uint32_t> rows) {
  norm_last(rows);
  return backend_.read(space_->last);
}

std::span<const float> Model::logits(std::span<const uint32_t> rows) {
  const Workspace& s = *space_;
  norm_last(rows);
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
