// Multi-head latent attention (DeepSeek-V2, 2024). A token leaves one short vector in the cache:
// the latent c, from which every head's key and value would be made, and the part of the key that
// carries the position, which all heads share. Instead of making keys and values, the matrices that
// would make them go over to the query and the result: with W_k and W_v of a head,
//   q · (W_k c) = (W_kᵀ q) · c   and   Σ p (W_v c) = W_v Σ p c,
// so that all heads attend to the same [c, k_pe] and sum the same c. Prompts are computed in this
// form too: a row then has the same bits as in decoding.
#include <optional>

#include "model/indexer.h"

namespace sluice::model {
namespace {

class LatentAttention : public Mixer {
 public:
  explicit LatentAttention(const LayerContext& context)
      : space_(context.space.latent),
        dims_(context.config.dims),
        epsilon_(context.config.latent_norm_eps),
        rope_(context.ropes[context.settings().rope]),
        rule_{.layer = context.layer,
              .heads = static_cast<uint32_t>(dims_.heads),
              .kv = context.settings().kv,
              .scale = context.config.attention_scale},
        kv_(context.product("self_attn.kv_a_proj_with_mqa", space_.key)),
        kv_norm_(context.weight("self_attn.kv_a_layernorm.weight")),
        output_(context.product("self_attn.o_proj", {})) {
    if (dims_.q_lora_rank == 0) {
      q_ = context.product("self_attn.q_proj", space_.q);
    } else {
      q_low_ = context.product("self_attn.q_a_proj", space_.q_low);
      q_norm_ = context.weight("self_attn.q_a_layernorm.weight");
      q_ = context.product("self_attn.q_b_proj", space_.q);
    }
    read_head_products(context);
    if (context.config.index_top_k == 0) return;
    indexer_.emplace(context);
    rule_.selected_max = indexer_->top_k();
  }

  void run(Backend& backend, const Batch& batch, Tensor x, Tensor out) override {
    if (q_low_.weight != Weight::kNone) {
      backend.qmatmul(x, {&q_low_, 1});
      backend.rms_norm(space_.q_low, q_norm_, epsilon_, space_.q_low);
      const Product of_low[] = {q_, indexer_ ? indexer_->query() : Product{}};
      backend.qmatmul(space_.q_low, std::span(of_low, indexer_ ? 2 : 1));
    } else {
      backend.qmatmul(x, {&q_, 1});
    }
    backend.qmatmul(x, {&kv_, 1});
    backend.rms_norm_first(space_.key, kv_norm_, epsilon_);

    backend.head_matmul(space_.q, into_latent_, space_.query);
    backend.copy_heads(space_.q, rule_.heads, dims_.qk_nope_head_dim, dims_.qk_rope_head_dim,
                       space_.query, dims_.kv_lora_rank);
    backend.rope(space_.query, rule_.heads, rope_, batch);
    backend.rope(space_.key, 1, rope_, batch);
    if (indexer_) indexer_->run(backend, batch, x);
    backend.store_kv(rule_, space_.key, space_.key, batch);
    backend.attention(rule_, space_.query, batch, space_.attended);
    backend.head_matmul(space_.attended, out_of_latent_, space_.values);
    output_.out = out;
    backend.qmatmul(space_.values, {&output_, 1});
  }

 private:
  // W_k and W_v of each head: in matrices of their own, the first transposed already, or as rows of
  // kv_b_proj.
  void read_head_products(const LayerContext& context) {
    const auto heads = static_cast<uint32_t>(dims_.heads);
    const auto rank = static_cast<uint32_t>(dims_.kv_lora_rank);
    const auto nope = static_cast<uint32_t>(dims_.qk_nope_head_dim);
    const auto value = static_cast<uint32_t>(dims_.v_head_dim);
    const Weight whole = context.weight_or_none("self_attn.kv_b_proj.weight");
    if (whole != Weight::kNone) {
      const uint32_t rows = nope + value;
      into_latent_ = {whole, heads, rows, 0, nope, true};
      out_of_latent_ = {whole, heads, rows, nope, value, false};
    } else {
      into_latent_ = {context.weight("self_attn.embed_q.weight"), heads, rank, 0, rank, false};
      out_of_latent_ = {
          context.weight("self_attn.unembed_out.weight"), heads, value, 0, value, false};
    }
  }

  const LatentSpace& space_;
  const families::ModelDims& dims_;
  const float epsilon_;
  const RopeTable rope_;
  AttentionRule rule_;
  Product q_low_{.weight = Weight::kNone};  // where q has a low rank
  Weight q_norm_ = Weight::kNone;
  Product q_{}, kv_;
  Weight kv_norm_;
  HeadProduct into_latent_, out_of_latent_;
  std::optional<Indexer> indexer_;
  Product output_;
};

}  // namespace

std::unique_ptr<Mixer> latent_attention_mixer(const LayerContext& context) {
  return std::make_unique<LatentAttention>(context);
}

}  // namespace sluice::model
