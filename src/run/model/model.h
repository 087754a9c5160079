// The forward pass of a decoder: embedding, layers, head. Written once over Backend; what differs
// between families is attention.h's options and the feed-forward part, dense.cpp or moe.cpp.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/backend.h"
#include "model/config.h"

namespace sluice::model {

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

// Activations that all layers share: a layer's are dead when the next begins.
struct Workspace {
  Tensor hidden{}, normed{}, delta{};                       // hidden_size
  Tensor q{}, k{}, v{}, attended{};                         // heads · head_dim
  Tensor gate{}, up{};                                      // the widest dense intermediate
  Tensor router_logits{}, slot_gate{}, slot_up{}, slots{};  // a row per chosen expert
  Tensor last{}, logits{};                                  // rows whose logits are wanted
};

// One thread; owns no weights. backend must outlive it.
class Model {
 public:
  // Asks the back-end for every weight and tensor. Weights that the configuration calls for are
  // there (SLUICE_CHECK): whoever opened the model has held its tensors against the same family.
  // context: the most positions that a sequence will hold.
  Model(const ModelConfig& config, Backend& backend, size_t context);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }

  // Appends the batch's rows to their sequences.
  void forward(const Batch& batch);
  // Logits of these rows of the last batch, ascending: row-major, valid until the next call.
  std::span<const float> logits(std::span<const uint32_t> rows);
  // Whether the hidden state of every row was finite after the last forward().
  bool finite();
  // Runs the batch again, from the same state of its sequences, and tells after which layer values
  // stop being finite: −1 for the embedding; nothing when all layers are well.
  std::optional<int> find_non_finite(const Batch& batch);

 private:
  struct Layer;
  void run_layer(Layer& layer, const Batch& batch);

  ModelConfig config_;
  Backend& backend_;
  std::unique_ptr<Workspace> space_;  // at one address: layers hold on to it
  RopeTable rope_{};
  Weight embedding_{}, norm_{}, head_{};
  std::vector<Layer> layers_;
};

// Makers of the feed-forward parts: SwiGLU over dense matrices, and a router over experts.
std::unique_ptr<FeedForward> dense_feed_forward(Backend& backend, uint32_t layer,
                                                const Workspace& space);
std::unique_ptr<FeedForward> sparse_feed_forward(const ModelConfig& config, Backend& backend,
                                                 uint32_t layer, const Workspace& space);

}  // namespace sluice::model
