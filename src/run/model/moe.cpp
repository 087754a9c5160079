// Mixtures of experts: a router's choice for each token, each expert a gated pair of matrices,
// summed with their weights, and beside them experts that every token goes through. In steps, so
// that a back-end that reads experts from disk can begin with those that are there: route, request,
// shared experts, products expert by expert, sum.
#include <algorithm>

#include "model/layer.h"

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

class Sparse : public FeedForward {
 public:
  Sparse(const LayerContext& context, const Norm& norm)
      : space_(context.space),
        activation_(context.config.activation),
        rule_(context.config.router),
        scales_input_(context.config.scales_expert_input),
        norm_(norm) {
    const ExpertNames& names = context.config.expert_names;
    const auto expert = [&](std::string_view part, Tensor out) {
      return context.product(fmt::format("{}.{}", names.experts, part), out);
    };
    router_ = context.product(names.router, space_.router_logits);
    gate_ = expert("gate_proj", space_.slot_gate);
    up_ = expert("up_proj", space_.slot_up);
    down_ = expert("down_proj", space_.slots);
    if (!names.correction.empty()) rule_.correction = context.weight(names.correction);
    if (context.config.dims.shared_intermediate_size == 0) return;
    shared_ = dense_feed_forward(context, names.shared, space_.shared);
    if (!names.shared_gate.empty())
      shared_gate_ = context.product(names.shared_gate, space_.shared_gate);
  }

  void run(Backend& backend, Tensor x, Tensor out) override {
    plan_experts(choose(backend, x), rule_.experts, rule_.top_k, next_slot_, plan_);
    const Weight weights[] = {gate_.weight, up_.weight, down_.weight};
    backend.request(weights, plan_.groups);
    if (shared_ != nullptr) run_shared(backend, x);
    // Of several tokens together most experts are used anyway. out is free until the sum.
    if (next_ != nullptr && plan_.rows == 1 && backend.wants_guesses()) next_->guess(backend, out);

    if (scales_input_) {
      backend.scale_slots(x, plan_, space_.slot_input);
      std::ranges::fill(plan_.choice_weight, 1.0f);
    }
    const Tensor input = scales_input_ ? space_.slot_input : x;
    const Product gate_and_up[] = {gate_, up_};
    for (auto groups = backend.next_experts(); !groups.empty(); groups = backend.next_experts()) {
      backend.expert_matmul(input, !scales_input_, plan_, groups, gate_and_up);
      backend.activate_slots(activation_, space_.slot_gate, space_.slot_up, groups);
      backend.expert_matmul(space_.slot_gate, false, plan_, groups, {&down_, 1});
    }
    backend.weighted_sum(space_.slots, plan_, out);
    if (shared_ != nullptr) backend.add(out, space_.shared_out);
  }

  void set_next(FeedForward* next) override { next_ = next; }

  void guess(Backend& backend, Tensor scratch) override {
    norm_.run(backend, space_.hidden, scratch);
    const Weight weights[] = {gate_.weight, up_.weight, down_.weight};
    backend.guess(weights, choose(backend, scratch));
  }

 private:
  std::span<const Choice> choose(Backend& backend, Tensor x) {
    backend.qmatmul(x, {&router_, 1});
    return backend.route(space_.router_logits, rule_);
  }

  void run_shared(Backend& backend, Tensor x) {
    shared_->run(backend, x, space_.shared_out);
    if (shared_gate_.weight == Weight::kNone) return;
    backend.qmatmul(x, {&shared_gate_, 1});
    backend.sigmoid_mul(space_.shared_gate, space_.shared_out);
  }

  const Workspace& space_;
  const ActivationRule activation_;
  RouterRule rule_;
  const bool scales_input_;
  const Norm norm_;
  Product router_{}, gate_{}, up_{}, down_{};
  std::unique_ptr<FeedForward> shared_;
  Product shared_gate_{.weight = Weight::kNone};
  FeedForward* next_ = nullptr;
  ExpertPlan plan_;
  std::vector<uint32_t> next_slot_;  // of each expert, while the plan is made
};

}  // namespace

std::unique_ptr<FeedForward> sparse_feed_forward(const LayerContext& context, const Norm& norm) {
  return std::make_unique<Sparse>(context, norm);
}

}  // namespace sluice::model
