// Experts beside a dense feed-forward part, as Gemma 4 has them: the experts get the hidden state
// by a norm of their own, and either result is normalised before they are added.
#include "model/layer.h"

namespace sluice::model {
namespace {

class Beside : public FeedForward {
 public:
  explicit Beside(const LayerContext& context)
      : space_(context.space),
        dense_(dense_feed_forward(context, context.config.dense_path,
                                  space_.dense_of(context.settings().intermediate_size))),
        behind_dense_(context.norm("post_feedforward_layernorm_1")),
        before_experts_(context.norm("pre_feedforward_layernorm_2")),
        behind_experts_(context.norm("post_feedforward_layernorm_2")),
        experts_(sparse_feed_forward(context, before_experts_)) {}

  void run(Backend& backend, Tensor x, Tensor out) override {
    dense_->run(backend, x, out);
    behind_dense_.run(backend, out, out);
    before_experts_.run(backend, space_.hidden, x);
    experts_->run(backend, x, space_.beside);
    behind_experts_.run(backend, space_.beside, space_.beside);
    backend.add(out, space_.beside);
  }

  void set_next(FeedForward* next) override { experts_->set_next(next); }
  void guess(Backend& backend, Tensor scratch) override { experts_->guess(backend, scratch); }

 private:
  const Workspace& space_;
  std::unique_ptr<FeedForward> dense_;
  const Norm behind_dense_, before_experts_, behind_experts_;
  std::unique_ptr<FeedForward> experts_;
};

}  // namespace

std::unique_ptr<FeedForward> beside_feed_forward(const LayerContext& context) {
  return std::make_unique<Beside>(context);
}

}  // namespace sluice::model
