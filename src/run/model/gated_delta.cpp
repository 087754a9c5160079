// Linear attention as Qwen3-Next and Qwen3.5 have it, Gated DeltaNet: q, k and v go through a short
// causal convolution, then through the gated delta rule; its output is normalised head by head and
// multiplied by silu of a gate.
#include "model/layer.h"

namespace sluice::model {
namespace {

// What both references add to the sum of squares, whatever rms_norm_eps is.
constexpr float kL2Epsilon = 1e-6f;

class GatedDelta : public Mixer {
 public:
  explicit GatedDelta(const LayerContext& context)
      : space_(context.space.linear),
        fused_(context.config.fused_linear_projections),
        fused_gates_(context.config.fused_linear_gates),
        norm_(context.norm("linear_attn.norm")),
        output_(context.product("linear_attn.out_proj", {})) {
    const families::ModelDims& dims = context.config.dims;
    const auto in = [&](std::string_view name, Tensor out) {
      return context.product(fmt::format("linear_attn.in_proj_{}", name), out);
    };
    projections_.push_back(in(fused_ ? "qkvz" : "qkv", space_.qkv));
    if (!fused_) projections_.push_back(in("z", space_.z));
    projections_.push_back(fused_gates_ ? in("ba", space_.ba) : in("b", space_.b));
    if (!fused_gates_) projections_.push_back(in("a", space_.a));
    convolution_ = {.layer = context.settings().state,
                    .weight = context.weight("linear_attn.conv1d.weight"),
                    .taps = static_cast<uint32_t>(dims.linear_conv_kernel_dim)};
    rule_ = {.layer = context.settings().state,
             .key_heads = static_cast<uint32_t>(dims.linear_key_heads),
             .value_heads = static_cast<uint32_t>(dims.linear_value_heads),
             .key_dim = static_cast<uint32_t>(dims.linear_key_head_dim),
             .value_dim = static_cast<uint32_t>(dims.linear_value_head_dim),
             .tiled_heads = context.config.tiled_value_heads,
             .epsilon = kL2Epsilon,
             .a_log = context.weight("linear_attn.A_log"),
             .dt_bias = context.weight("linear_attn.dt_bias")};
  }

  void run(Backend& backend, const Batch& batch, Tensor x, Tensor out) override {
    backend.qmatmul(x, projections_);
    if (fused_)
      split_fused(backend);
    else
      split(backend);
    if (fused_gates_) split_gates(backend);
    const uint32_t keys = rule_.key_heads * rule_.key_dim;
    convolve(backend, batch, space_.q, 0, keys);
    convolve(backend, batch, space_.k, keys, keys);
    convolve(backend, batch, space_.v, 2 * keys, rule_.value_heads * rule_.value_dim);
    backend.delta(rule_, space_.q, space_.k, space_.v, space_.b, space_.a, batch, space_.out);
    norm_.run_heads(backend, space_.out, rule_.value_heads);
    backend.activate({.kind = Activation::kSilu}, space_.z, space_.out);
    output_.out = out;
    backend.qmatmul(space_.z, {&output_, 1});
  }

 private:
  // All queries, then all keys, then all values.
  void split(Backend& backend) {
    const size_t keys = size_t{rule_.key_heads} * rule_.key_dim;
    backend.take_columns(space_.qkv, 1, 0, space_.q);
    backend.take_columns(space_.qkv, 1, keys, space_.k);
    backend.take_columns(space_.qkv, 1, 2 * keys, space_.v);
  }

  // Key head by key head: query, key, the values and then the gates of its value heads.
  void split_fused(Backend& backend) {
    const size_t heads = rule_.key_heads, key = rule_.key_dim;
    const size_t values_of_key = rule_.value_heads / rule_.key_heads;
    backend.take_columns(space_.qkv, heads, 0, space_.q);
    backend.take_columns(space_.qkv, heads, key, space_.k);
    backend.take_columns(space_.qkv, heads, 2 * key, space_.v);
    backend.take_columns(space_.qkv, heads, 2 * key + values_of_key * rule_.value_dim, space_.z);
  }

  // Key head by key head: b and then a of its value heads.
  void split_gates(Backend& backend) {
    backend.take_columns(space_.ba, rule_.key_heads, 0, space_.b);
    backend.take_columns(space_.ba, rule_.key_heads, rule_.value_heads / rule_.key_heads, space_.a);
  }

  void convolve(Backend& backend, const Batch& batch, Tensor x, uint32_t first, uint32_t channels) {
    convolution_.first_channel = first;
    convolution_.channels = channels;
    backend.convolve(convolution_, x, batch);
  }

  const LinearSpace& space_;
  const bool fused_, fused_gates_;
  const Norm norm_;
  std::vector<Product> projections_;
  Product output_;
  ConvolutionRule convolution_;
  DeltaRule rule_;
};

}  // namespace

std::unique_ptr<Mixer> gated_delta_mixer(const LayerContext& context) {
  return std::make_unique<GatedDelta>(context);
}

}  // namespace sluice::model
