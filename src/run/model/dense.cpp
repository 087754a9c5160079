// down(activation(gate·x) ⊙ up·x), or down(activation(up·x)) where there is no gate: the
// feed-forward part of dense layers, and the experts that every token goes through in sparse ones.
// gate and up are matrices of their own or the halves of one.
#include "model/layer.h"

namespace sluice::model {
namespace {

class Dense : public FeedForward {
 public:
  Dense(const LayerContext& context, std::string_view path, const GatedSpace& space)
      : space_(space),
        activation_(context.config.activation),
        fused_(context.config.fused_projections),
        down_(context.product(fmt::format("{}.down_proj", path), {})) {
    const auto first = [&](std::string_view part, Tensor out) {
      first_.push_back(context.product(fmt::format("{}.{}", path, part), out));
    };
    if (fused_) {
      first("gate_up_proj", space.both);
    } else {
      if (context.config.gated) first("gate_proj", space.gate);
      first("up_proj", context.config.gated ? space.up : space.gate);
    }
  }

  void run(Backend& backend, Tensor x, Tensor out) override {
    backend.qmatmul(x, first_);
    if (fused_) {
      backend.take_columns(space_.both, 1, 0, space_.gate);
      backend.take_columns(space_.both, 1, space_.width, space_.up);
    }
    backend.activate(activation_, space_.gate, space_.up);
    down_.out = out;
    backend.qmatmul(space_.gate, {&down_, 1});
  }

 private:
  const GatedSpace space_;
  const ActivationRule activation_;
  const bool fused_;  // one matrix: the rows of gate, then those of up
  std::vector<Product> first_;
  Product down_;
};

}  // namespace

std::unique_ptr<FeedForward> dense_feed_forward(const LayerContext& context, std::string_view path,
                                                const GatedSpace& space) {
  return std::make_unique<Dense>(context, path, space);
}

}  // namespace sluice::model
