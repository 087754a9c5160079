// The two halves of a decoder's layer, which mix tokens and work on each by itself, and what their
// makers need: settings, names, weights, and the activations that all layers share.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/backend.h"
#include "model/config.h"

namespace sluice::model {

// h += mixer(norm(h)) without the sum and the norm. One layer's.
class Mixer {
 public:
  virtual ~Mixer() = default;
  // x: the normalised rows of the batch; out: overwritten.
  virtual void run(Backend& backend, const Batch& batch, Tensor x, Tensor out) = 0;
};

// h += feed_forward(norm(h)) without the sum and the norm. One layer's.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // x: the normalised rows; out: overwritten.
  virtual void run(Backend& backend, Tensor x, Tensor out) = 0;
  // The layer behind this one's, for guesses at its experts; nothing where there is none.
  virtual void set_next(FeedForward* /*next*/) {}
  // Tells the back-end which experts the workspace's hidden state would choose if the layers in
  // between changed nothing. scratch: hidden_size columns, overwritten.
  virtual void guess(Backend& /*backend*/, Tensor /*scratch*/) {}
};

// Of attention to keys and values of some size. Rows are heads · head_dim.
struct AttentionSpace {
  KvDims kv;
  Tensor q{}, k{}, v{}, attended{};
  Tensor qkv{};              // where they are one matrix
  Tensor gated_q{}, gate{};  // 2 · heads · head_dim, half of it
};

// Of a feed-forward part of that width: gate and up, and both where they come out of one matrix.
// One without a gate has its only vector in gate.
struct GatedSpace {
  size_t width = 0;
  Tensor gate{}, up{}, both{};
};

// Of latent attention. A query is as wide as a key: [in terms of the latent, with the position].
struct LatentSpace {
  Tensor q_low{}, q{};                                 // q_lora_rank; heads · (nope + rope)
  Tensor key{};                                        // kv_lora_rank + rope
  Tensor query{}, attended{};                          // heads · that; heads · kv_lora_rank
  Tensor values{};                                     // heads · v_head_dim
  Tensor index_query{}, index_key{}, index_weights{};  // heads · head_dim, head_dim, heads
};

// Of linear attention: the projections as they come, and what they consist of.
struct LinearSpace {
  Tensor qkv{}, ba{};  // in_proj_qkv; fused: in_proj_qkvz and in_proj_ba
  Tensor q{}, k{}, v{}, z{}, b{}, a{}, out{};
};

// Of Mamba2: its projection as it comes, and what it consists of.
struct MambaSpace {
  Tensor in{};
  Tensor gate{}, x{}, out{};  // heads · head_dim
  Tensor b{}, c{};            // groups · state_dim
  Tensor dt{}, decay{};       // heads
};

// Of inputs that layers have of their own.
struct LayerInputSpace {
  Tensor all{}, projected{};  // layers · hidden_size_per_layer_input
  Tensor input{}, gate{};     // one layer's
};

// Activations that all layers share: a layer's are dead when the next begins.
struct Workspace {
  Tensor hidden{}, normed{}, delta{};  // hidden_size
  std::vector<AttentionSpace> attention;
  LatentSpace latent{};
  LinearSpace linear;
  MambaSpace mamba;
  LayerInputSpace layer_input;
  std::vector<GatedSpace> dense;
  GatedSpace shared{};                 // of shared experts
  Tensor shared_out{}, shared_gate{};  // hidden_size, 1
  Tensor router_input{}, beside{};     // hidden_size
  Tensor router_logits{};
  Tensor latent_in{}, latent_out{};        // where experts work on vectors of another size
  Tensor slot_gate{}, slot_up{}, slots{};  // a row per chosen expert
  Tensor slot_input{};                     // the same, where it is scaled
  Tensor last{}, logits{};                 // rows whose logits are wanted

  // Those of that size, which there are.
  const AttentionSpace& attention_of(const KvDims& kv) const;
  const GatedSpace& dense_of(size_t width) const;
};

// backend.weight(name), which must be there.
Weight required(Backend& backend, std::string_view name);

// A norm with its weights: path + ".weight", and ".bias" where the model brings one.
class Norm {
 public:
  Norm() = default;
  Norm(const ModelConfig& config, Backend& backend, std::string_view path);
  void run(Backend& backend, Tensor x, Tensor out) const;  // out may be x
  // Each of a row's heads by itself.
  void run_heads(Backend& backend, Tensor x, size_t heads) const;

 private:
  NormKind kind_ = NormKind::kRms;
  Weight weight_ = Weight::kNone, bias_ = Weight::kNone;
  float epsilon_ = 0;
};

// What the makers of a layer's halves are given. Everything but layer outlives the layer.
struct LayerContext {
  const ModelConfig& config;
  Backend& backend;
  const Workspace& space;
  std::span<const RopeTable> ropes;  // as config.ropes
  uint32_t layer = 0;

  const LayerConfig& settings() const { return config.layers[layer]; }
  // Of this layer's parameter, such as "self_attn.q_proj.weight".
  Weight weight(std::string_view parameter) const;           // must be there
  Weight weight_or_none(std::string_view parameter) const;   // kNone where the model has none
  Product product(std::string_view path, Tensor out) const;  // with its bias where there is one
  Norm norm(std::string_view path) const;
};

std::unique_ptr<Mixer> attention_mixer(const LayerContext& context);
std::unique_ptr<Mixer> latent_attention_mixer(const LayerContext& context);
std::unique_ptr<Mixer> gated_delta_mixer(const LayerContext& context);
std::unique_ptr<Mixer> mamba_mixer(const LayerContext& context);

// down(activation(gate·x) ⊙ up·x) over dense matrices under path, such as "mlp".
std::unique_ptr<FeedForward> dense_feed_forward(const LayerContext& context, std::string_view path,
                                                const GatedSpace& space);
// A router over experts, and shared experts where the family has them. norm: the one whose output
// the layer's feed-forward part gets.
std::unique_ptr<FeedForward> sparse_feed_forward(const LayerContext& context, const Norm& norm);
// Experts and a dense part beside them.
std::unique_ptr<FeedForward> beside_feed_forward(const LayerContext& context);

// The inputs that layers have of their own, before the first layer.
class LayerInputs {
 public:
  LayerInputs(const ModelConfig& config, Backend& backend, const Workspace& space);
  // The workspace's hidden state is the embedding of the tokens.
  void run(Backend& backend, std::span<const uint32_t> tokens) const;

 private:
  const LayerInputSpace& space_;
  const Tensor hidden_;
  const size_t layers_;
  const float multiplier_, projection_multiplier_, epsilon_;
  const Weight embedding_, norm_;
  const Product projection_;
};

// h += norm(projection(activation(gate·h) ⊙ the layer's input)), behind the layer's other parts.
class LayerInput {
 public:
  explicit LayerInput(const LayerContext& context);
  void run(Backend& backend) const;

 private:
  const Workspace& space_;
  const ActivationRule activation_;
  const size_t first_;  // of its columns
  const Product gate_, projection_;
  const Norm norm_;
};

}  // namespace sluice::model
