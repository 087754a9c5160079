// Mixtures of experts as qwen3_moe and mixtral have them: softmax over all experts, the top k of
// them, each a SwiGLU, summed with their weights. In steps, so that a back-end that reads experts
// from disk can begin with those that are there: route, request, products expert by expert, sum.
#include <algorithm>

#include "model/attention.h"

namespace sluice::model {
namespace {

// Sorts the choices by expert: a counting sort, stable, so that a group's slots are in row order.
void plan_experts(std::span<const Choice> choices, uint32_t experts, uint32_t top_k,
                  std::vector<uint32_t>& next, ExpertPlan& plan) {
  const auto count = static_cast<uint32_t>(choices.size());
  plan.rows = count / top_k;
  plan.top_k = top_k;
  plan.slot_row.resize(count);
  plan.choice_slot.resize(count);
  plan.choice_weight.resize(count);
  next.assign(experts + 1, 0);
  for (const Choice& choice : choices) ++next[choice.expert + 1];
  plan.groups.clear();
  for (uint32_t expert = 0; expert < experts; ++expert) {
    if (next[expert + 1] > 0) plan.groups.push_back({expert, next[expert], next[expert + 1]});
    next[expert + 1] += next[expert];
  }
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t slot = next[choices[i].expert]++;
    plan.slot_row[slot] = i / top_k;
    plan.choice_slot[i] = slot;
    plan.choice_weight[i] = choices[i].weight;
  }
}

// The parts under the names that their families have for them.
struct Names {
  std::string_view router, gate, up, down;
};
constexpr Names kQwenNames = {"mlp.gate.weight", "mlp.switch_mlp.gate_proj.weight",
                              "mlp.switch_mlp.up_proj.weight", "mlp.switch_mlp.down_proj.weight"};
constexpr Names kMixtralNames = {
    "block_sparse_moe.gate.weight", "block_sparse_moe.switch_mlp.gate_proj.weight",
    "block_sparse_moe.switch_mlp.up_proj.weight", "block_sparse_moe.switch_mlp.down_proj.weight"};

class Sparse : public FeedForward {
 public:
  Sparse(const ModelConfig& config, Backend& backend, uint32_t layer, const Workspace& space)
      : space_(space),
        epsilon_(config.rms_norm_eps),
        rule_{.experts = static_cast<uint32_t>(config.dims.experts),
              .top_k = config.experts_per_token,
              .renormalize = config.norm_topk_prob} {
    const Names& names = config.family == "mixtral" ? kMixtralNames : kQwenNames;
    router_ = required(backend, layer_name(layer, names.router));
    gate_ = required(backend, layer_name(layer, names.gate));
    up_ = required(backend, layer_name(layer, names.up));
    down_ = required(backend, layer_name(layer, names.down));
    norm_ = required(backend, layer_name(layer, "post_attention_layernorm.weight"));
  }

  void run(Backend& backend, Tensor x, Tensor out) override {
    plan_experts(choose(backend, x), rule_.experts, rule_.top_k, next_slot_, plan_);
    const Weight weights[] = {gate_, up_, down_};
    backend.request(weights, plan_.groups);
    // Of several tokens together most experts are used anyway. out is free until the sum.
    if (next_ != nullptr && plan_.rows == 1 && backend.wants_guesses()) next_->guess(backend, out);

    const Product gate_and_up[] = {{.weight = gate_, .out = space_.slot_gate},
                                   {.weight = up_, .out = space_.slot_up}};
    const Product down[] = {{.weight = down_, .out = space_.slots}};
    for (auto groups = backend.next_experts(); !groups.empty(); groups = backend.next_experts()) {
      backend.expert_matmul(x, true, plan_, groups, gate_and_up);
      backend.silu_mul_slots(space_.slot_gate, space_.slot_up, groups);
      backend.expert_matmul(space_.slot_gate, false, plan_, groups, down);
    }
    backend.weighted_sum(space_.slots, plan_, out);
  }

  void set_next(FeedForward* next) override { next_ = next; }

  void guess(Backend& backend, Tensor scratch) override {
    backend.rms_norm(space_.hidden, norm_, epsilon_, scratch);
    const Weight weights[] = {gate_, up_, down_};
    backend.guess(weights, choose(backend, scratch));
  }

 private:
  std::span<const Choice> choose(Backend& backend, Tensor x) {
    const Product router[] = {{.weight = router_, .out = space_.router_logits}};
    backend.qmatmul(x, router);
    return backend.route(space_.router_logits, rule_);
  }

  const Workspace& space_;
  const float epsilon_;
  const RouterRule rule_;
  Weight router_{}, gate_{}, up_{}, down_{}, norm_{};
  FeedForward* next_ = nullptr;
  ExpertPlan plan_;
  std::vector<uint32_t> next_slot_;  // of each expert, while the plan is made
};

}  // namespace

std::unique_ptr<FeedForward> sparse_feed_forward(const ModelConfig& config, Backend& backend,
                                                 uint32_t layer, const Workspace& space) {
  return std::make_unique<Sparse>(config, backend, layer, space);
}

}  // namespace sluice::model
