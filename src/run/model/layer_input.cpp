// Inputs that layers have of their own, as Gemma 4's small models have them: of every token a
// vector for each layer is looked up, added to a projection of the embedding, and gated into the
// hidden state behind the layer's other parts.
#include <cmath>
#include <numbers>

#include "model/layer.h"

namespace sluice::model {

LayerInputs::LayerInputs(const ModelConfig& config, Backend& backend, const Workspace& space)
    : space_(space.layer_input),
      hidden_(space.hidden),
      layers_(config.layers.size()),
      multiplier_(config.layer_input_multiplier),
      projection_multiplier_(1 / std::sqrt(static_cast<float>(config.dims.hidden_size))),
      epsilon_(config.rms_norm_eps),
      embedding_(required(backend, config.prefix + "embed_tokens_per_layer.weight")),
      norm_(required(backend, config.prefix + "per_layer_projection_norm.weight")),
      projection_{.weight = required(backend, config.prefix + "per_layer_model_projection.weight"),
                  .out = space_.projected} {}

void LayerInputs::run(Backend& backend, std::span<const uint32_t> tokens) const {
  backend.embed(embedding_, tokens, space_.all);
  backend.scale(space_.all, multiplier_);
  backend.qmatmul(hidden_, {&projection_, 1});
  backend.scale(space_.projected, projection_multiplier_);
  backend.rms_norm_heads(space_.projected, layers_, norm_, epsilon_);
  backend.add(space_.all, space_.projected);
  backend.scale(space_.all, std::numbers::sqrt2_v<float> / 2);  // the mean of two in size
}

LayerInput::LayerInput(const LayerContext& context)
    : space_(context.space),
      activation_(context.config.activation),
      first_(context.layer * context.config.dims.layer_input_size),
      gate_(context.product("per_layer_input_gate", space_.layer_input.gate)),
      projection_(context.product("per_layer_projection", space_.delta)),
      norm_(context.norm("post_per_layer_input_norm")) {}

void LayerInput::run(Backend& backend) const {
  const LayerInputSpace& space = space_.layer_input;
  backend.qmatmul(space_.hidden, {&gate_, 1});
  backend.take_columns(space.all, 1, first_, space.input);
  backend.activate(activation_, space.gate, space.input);
  backend.qmatmul(space.gate, {&projection_, 1});
  norm_.run(backend, space_.delta, space_.delta);
  backend.add(space_.hidden, space_.delta);
}

}  // namespace sluice::model
