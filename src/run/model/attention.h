// Grouped-query attention as llama, qwen2, qwen3 and mixtral have it: biases where the model brings
// them, a norm on each head of q and k where the family says so, rotation, sliding windows.
#pragma once

#include "model/model.h"

namespace sluice::model {

// One layer's weights; kNone where the family has none.
class Attention {
 public:
  Attention(const ModelConfig& config, Backend& backend, uint32_t layer);

  // out = attention(x) of the normalised rows x.
  void run(Backend& backend, const Workspace& space, RopeTable rope, const Batch& batch, Tensor x,
           Tensor out) const;

 private:
  Weight q_{}, k_{}, v_{}, o_{};
  Weight q_bias_{}, k_bias_{}, v_bias_{}, o_bias_{};
  Weight q_norm_ = Weight::kNone, k_norm_ = Weight::kNone;
  float epsilon_;
  AttentionRule rule_;
};

// A parameter of a layer: "model.layers.3.self_attn.q_proj.weight" for 3 and
// "self_attn.q_proj.weight".
std::string layer_name(uint32_t layer, std::string_view parameter);
// backend.weight(name), which must be there.
Weight required(Backend& backend, std::string_view name);

}  // namespace sluice::model
