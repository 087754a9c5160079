// Mamba2 as Nemotron-H has it: one projection for the gate, what is mixed, and the steps; a short
// causal convolution; the selective state space; its output is multiplied by silu of the gate and
// normalised group by group.
#include "model/layer.h"

namespace sluice::model {
namespace {

class Mamba : public Mixer {
 public:
  explicit Mamba(const LayerContext& context)
      : space_(context.space.mamba),
        epsilon_(context.config.rms_norm_eps),
        norm_(context.weight("mixer.norm.weight")),
        input_(context.product("mixer.in_proj", space_.in)),
        output_(context.product("mixer.out_proj", {})) {
    const families::ModelDims& dims = context.config.dims;
    convolution_ = {.layer = context.settings().state,
                    .weight = context.weight("mixer.conv1d.weight"),
                    .bias = context.weight_or_none("mixer.conv1d.bias"),
                    .taps = static_cast<uint32_t>(dims.linear_conv_kernel_dim)};
    rule_ = {.layer = context.settings().state,
             .heads = static_cast<uint32_t>(dims.mamba_heads),
             .groups = static_cast<uint32_t>(dims.mamba_groups),
             .head_dim = static_cast<uint32_t>(dims.mamba_head_dim),
             .state_dim = static_cast<uint32_t>(dims.mamba_state),
             .step_min = context.config.step_min,
             .step_max = context.config.step_max,
             .a_log = context.weight("mixer.A_log"),
             .dt_bias = context.weight("mixer.dt_bias"),
             .skip = context.weight("mixer.D")};
  }

  void run(Backend& backend, const Batch& batch, Tensor x, Tensor out) override {
    backend.qmatmul(x, {&input_, 1});
    const uint32_t inner = rule_.heads * rule_.head_dim, group = rule_.groups * rule_.state_dim;
    backend.take_columns(space_.in, 1, 0, space_.gate);
    backend.take_columns(space_.in, 1, 2 * size_t{inner} + 2 * size_t{group}, space_.dt);
    convolve(backend, batch, 0, inner, space_.x);
    convolve(backend, batch, inner, group, space_.b);
    convolve(backend, batch, inner + group, group, space_.c);
    backend.state_space(rule_, space_.x, space_.b, space_.c, space_.dt, space_.decay, batch,
                        space_.out);
    backend.activate({.kind = Activation::kSilu}, space_.gate, space_.out);
    backend.rms_norm_heads(space_.gate, rule_.groups, Weight::kNone, epsilon_);
    backend.multiply(space_.gate, norm_);
    output_.out = out;
    backend.qmatmul(space_.gate, {&output_, 1});
  }

 private:
  // Channels of the layer, which in the projection come behind the gate.
  void convolve(Backend& backend, const Batch& batch, uint32_t first, uint32_t channels,
                Tensor out) {
    backend.take_columns(space_.in, 1, size_t{rule_.heads} * rule_.head_dim + first, out);
    convolution_.first_channel = first;
    convolution_.channels = channels;
    backend.convolve(convolution_, out, batch);
  }

  const MambaSpace& space_;
  const float epsilon_;
  const Weight norm_;
  const Product input_;
  Product output_;
  ConvolutionRule convolution_;
  StateSpaceRule rule_;
};

}  // namespace

std::unique_ptr<Mixer> mamba_mixer(const LayerContext& context) {
  return std::make_unique<Mamba>(context);
}

}  // namespace sluice::model
