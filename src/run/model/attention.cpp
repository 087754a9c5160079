// Grouped-query attention: biases where the model brings them, norms of q and k where the family
// says so, rotation of all or some dimensions, sliding windows, chunks, and sinks where the model
// brings them. q, k and v are matrices of their own or the rows of one; v may be k, and a layer may
// borrow both from an earlier one.
#include "model/layer.h"

namespace sluice::model {
namespace {

class Attention : public Mixer {
 public:
  explicit Attention(const LayerContext& context)
      : space_(context.space.attention_of(context.settings().kv)),
        fused_(context.config.fused_projections),
        gated_(context.config.attention_gate),
        borrows_(context.settings().lender != context.layer),
        output_(context.product(name(context, "o_proj"), {})),
        qk_norm_(context.config.qk_norm),
        rule_{.layer = context.settings().lender,
              .heads = static_cast<uint32_t>(context.config.dims.heads),
              .kv = context.settings().kv,
              .scale = context.config.attention_scale,
              .window = context.settings().window,
              .chunk = context.settings().chunk,
              .softcap = context.config.attention_softcap,
              .sinks = context.weight_or_none(name(context, "sinks"))},
        uses_rope_(context.settings().uses_rope),
        unweighted_eps_(context.config.qk_norm_eps),
        value_norm_(context.config.value_norm),
        norm_eps_(context.config.rms_norm_eps),
        query_scale_(context.config.query_scale) {
    if (uses_rope_) rope_ = context.ropes[context.settings().rope];
    const auto project = [&](std::string_view part, Tensor out) {
      projections_.push_back(context.product(name(context, part), out));
    };
    if (fused_) {
      project("qkv_proj", space_.qkv);
    } else {
      project("q_proj", gated_ ? space_.gated_q : space_.q);
      if (!borrows_) project("k_proj", space_.k);
      values_are_keys_ = context.config.keys_are_values &&
                         context.weight_or_none(name(context, "v_proj.weight")) == Weight::kNone;
      if (!borrows_ && !values_are_keys_) project("v_proj", space_.v);
    }
    if (qk_norm_ == QkNorm::kNone || qk_norm_ == QkNorm::kRotated) return;
    q_norm_ = context.norm(name(context, "q_norm"));
    if (!borrows_) k_norm_ = context.norm(name(context, "k_norm"));
  }

  void run(Backend& backend, const Batch& batch, Tensor x, Tensor out) override {
    project(backend, x);
    normalise(backend);
    if (uses_rope_)
      rotate(backend, batch);
    else if (query_scale_.factor > 0)
      backend.scale_by_position(space_.q, query_scale_, batch);
    if (!borrows_) backend.store_kv(rule_, space_.k, space_.v, batch);
    backend.attention(rule_, space_.q, batch, space_.attended);
    if (gated_) backend.sigmoid_mul(space_.gate, space_.attended);
    output_.out = out;
    backend.qmatmul(space_.attended, {&output_, 1});
  }

 private:
  static std::string name(const LayerContext& context, std::string_view part) {
    return fmt::format("{}.{}", context.config.attention_path, part);
  }

  void project(Backend& backend, Tensor x) {
    backend.qmatmul(x, projections_);
    if (gated_) {
      backend.take_columns(space_.gated_q, rule_.heads, 0, space_.q);
      backend.take_columns(space_.gated_q, rule_.heads, rule_.kv.key_dim, space_.gate);
    }
    if (!borrows_ && values_are_keys_) backend.take_columns(space_.k, 1, 0, space_.v);
    if (!fused_) return;
    const size_t q = size_t{rule_.heads} * rule_.kv.key_dim;
    const size_t kv = size_t{rule_.kv.heads} * rule_.kv.key_dim;
    backend.take_columns(space_.qkv, 1, 0, space_.q);
    backend.take_columns(space_.qkv, 1, q, space_.k);
    backend.take_columns(space_.qkv, 1, q + kv, space_.v);
  }

  void normalise(Backend& backend) {
    if (value_norm_ && !borrows_)
      backend.rms_norm_heads(space_.v, rule_.kv.heads, Weight::kNone, norm_eps_);
    switch (qk_norm_) {
      case QkNorm::kNone:
      case QkNorm::kRotated: return;
      case QkNorm::kHead:
        q_norm_.run_heads(backend, space_.q, rule_.heads);
        if (!borrows_) k_norm_.run_heads(backend, space_.k, rule_.kv.heads);
        return;
      case QkNorm::kRow:
        q_norm_.run(backend, space_.q, space_.q);
        if (!borrows_) k_norm_.run(backend, space_.k, space_.k);
        return;
    }
  }

  void rotate(Backend& backend, const Batch& batch) {
    backend.rope(space_.q, rule_.heads, rope_, batch);
    if (!borrows_) backend.rope(space_.k, rule_.kv.heads, rope_, batch);
    if (qk_norm_ != QkNorm::kRotated) return;
    backend.rms_norm_heads(space_.q, rule_.heads, Weight::kNone, unweighted_eps_);
    if (!borrows_) backend.rms_norm_heads(space_.k, rule_.kv.heads, Weight::kNone, unweighted_eps_);
  }

  const AttentionSpace& space_;
  const bool fused_;    // one matrix: the rows of q, then k, then v
  const bool gated_;    // q_proj brings gates as well, head by head
  const bool borrows_;  // keys and values are an earlier layer's
  bool values_are_keys_ = false;
  std::vector<Product> projections_;
  Product output_;
  const QkNorm qk_norm_;
  Norm q_norm_, k_norm_;
  const AttentionRule rule_;
  const bool uses_rope_;
  RopeTable rope_{};
  const float unweighted_eps_;  // QkNorm::kRotated
  const bool value_norm_;
  const float norm_eps_;
  const PositionScale query_scale_;
};

}  // namespace

std::unique_ptr<Mixer> attention_mixer(const LayerContext& context) {
  return std::make_unique<Attention>(context);
}

}  // namespace sluice::model
