// The forward pass of a decoder: embedding, layers, head. Written once over Backend; what differs
// between families is in ModelConfig, and each kind of layer has a file of its own.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/backend.h"
#include "model/config.h"
#include "model/layer.h"

namespace sluice::model {

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
  // What these rows' logits are made of: the hidden state behind the final norm. As logits().
  std::span<const float> states(std::span<const uint32_t> rows);
  // Whether the hidden state of every row was finite after the last forward().
  bool finite();
  // Runs the batch again, from the same state of its sequences, and tells after which layer values
  // stop being finite: −1 for the embedding; nothing when all layers are well.
  std::optional<int> find_non_finite(const Batch& batch);

 private:
  struct Layer;
  static Layer make_layer(const LayerContext& parts);
  void embed(const Batch& batch);
  void norm_last(std::span<const uint32_t> rows);
  void run_layer(Layer& layer, const Batch& batch);
  void add_to_hidden(Tensor delta);

  ModelConfig config_;
  Backend& backend_;
  std::unique_ptr<Workspace> space_;  // at one address: layers hold on to it
  std::vector<RopeTable> ropes_;
  Weight embedding_{};
  Norm norm_;
  Product head_;
  std::optional<LayerInputs> layer_inputs_;
  std::vector<Layer> layers_;
};

}  // namespace sluice::model
