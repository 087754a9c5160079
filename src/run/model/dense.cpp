// SwiGLU: down(silu(gate·x) ⊙ up·x). The feed-forward part of llama, mistral, qwen2 and qwen3, and
// of qwen3_moe's dense layers.
#include "model/attention.h"

namespace sluice::model {
namespace {

class Dense : public FeedForward {
 public:
  Dense(Backend& backend, uint32_t layer, const Workspace& space)
      : gate_(part(backend, layer, "gate_proj", space.gate)),
        up_(part(backend, layer, "up_proj", space.up)),
        down_(part(backend, layer, "down_proj", {})) {}

  void run(Backend& backend, Tensor x, Tensor out) override {
    const Product gate_and_up[] = {gate_, up_};
    backend.qmatmul(x, gate_and_up);
    backend.silu_mul(gate_.out, up_.out);
    down_.out = out;
    backend.qmatmul(gate_.out, std::span(&down_, 1));
  }

 private:
  static Product part(Backend& backend, uint32_t layer, std::string_view name, Tensor out) {
    return {required(backend, layer_name(layer, fmt::format("mlp.{}.weight", name))),
            backend.weight(layer_name(layer, fmt::format("mlp.{}.bias", name))), out};
  }

  Product gate_, up_, down_;
};

}  // namespace

std::unique_ptr<FeedForward> dense_feed_forward(Backend& backend, uint32_t layer,
                                                const Workspace& space) {
  return std::make_unique<Dense>(backend, layer, space);
}

}  // namespace sluice::model
