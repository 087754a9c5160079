// Mixtures of experts: a router's choice for each token, each expert a gated pair of matrices or
// two of them, summed with their weights, and beside them experts that every token goes through. In
// steps, so that a back-end that reads experts from disk can begin with those that are there:
// route, request, shared experts, products expert by expert, sum.
#include <algorithm>
#include <cmath>

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
        norm_(norm),
        epsilon_(context.config.rms_norm_eps),
        hidden_size_(context.config.dims.hidden_size) {
    const ExpertNames& names = context.config.expert_names;
    const auto expert = [&](std::string_view part, Tensor out) {
      return context.product(fmt::format("{}.{}", names.experts, part), out);
    };
    router_ = context.product(names.router, space_.router_logits);
    first_.push_back(expert(names.gate, space_.slot_gate));
    if (context.config.gated) first_.push_back(expert(names.up, space_.slot_up));
    down_ = expert(names.down, space_.slots);
    for (const Product& product : first_) weights_.push_back(product.weight);
    weights_.push_back(down_.weight);
    if (!names.correction.empty()) rule_.correction = context.weight(names.correction);
    if (!names.expert_scale.empty()) rule_.expert_scale = context.weight(names.expert_scale);
    if (!names.router_norm.empty()) router_norm_ = context.weight(names.router_norm);
    if (!names.into_latent.empty()) {
      into_latent_ = context.product(names.into_latent, space_.latent_in);
      from_latent_ = context.product(names.from_latent, {});
    }
    if (context.config.dims.shared_intermediate_size == 0) return;
    shared_ = dense_feed_forward(context, names.shared, space_.shared);
    if (!names.shared_gate.empty())
      shared_gate_ = context.product(names.shared_gate, space_.shared_gate);
  }

  void run(Backend& backend, Tensor x, Tensor out) override {
    const Tensor routed = router_norm_ == Weight::kNone ? x : space_.router_input;
    if (routed != x) normalise_for_router(backend, routed);
    plan_experts(choose(backend, routed), rule_.experts, rule_.top_k, next_slot_, plan_);
    backend.request(weights_, plan_.groups);
    if (shared_ != nullptr) run_shared(backend, x);
    // Of several tokens together most experts are used anyway. out is free until the sum.
    if (next_ != nullptr && plan_.rows == 1 && backend.wants_guesses()) next_->guess(backend, out);

    if (scales_input_) {
      backend.scale_slots(x, plan_, space_.slot_input);
      std::ranges::fill(plan_.choice_weight, 1.0f);
    }
    const bool latent = into_latent_.weight != Weight::kNone;
    if (latent) backend.qmatmul(x, {&into_latent_, 1});
    const Tensor input = scales_input_ ? space_.slot_input : latent ? space_.latent_in : x;
    const Tensor up = first_.back().out;  // there is no gate where it is the only one
    for (auto groups = backend.next_experts(); !groups.empty(); groups = backend.next_experts()) {
      backend.expert_matmul(input, !scales_input_, plan_, groups, first_);
      backend.activate_slots(activation_, space_.slot_gate, up, groups);
      backend.expert_matmul(space_.slot_gate, false, plan_, groups, {&down_, 1});
    }
    backend.weighted_sum(space_.slots, plan_, latent ? space_.latent_out : out);
    if (latent) {
      from_latent_.out = out;
      backend.qmatmul(space_.latent_out, {&from_latent_, 1});
    }
    if (shared_ != nullptr) backend.add(out, space_.shared_out);
  }

  void set_next(FeedForward* next) override { next_ = next; }

  void guess(Backend& backend, Tensor scratch) override {
    if (router_norm_ == Weight::kNone)
      norm_.run(backend, space_.hidden, scratch);
    else
      normalise_for_router(backend, scratch);
    backend.guess(weights_, choose(backend, scratch));
  }

 private:
  void normalise_for_router(Backend& backend, Tensor out) {
    backend.rms_norm(space_.hidden, router_norm_, epsilon_, out);
    backend.scale(out, 1 / std::sqrt(static_cast<float>(hidden_size_)));
  }

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
  const float epsilon_;
  const size_t hidden_size_;
  Weight router_norm_ = Weight::kNone;
  Product router_{}, down_{};
  std::vector<Product> first_;   // gate and up, or the only one
  std::vector<Weight> weights_;  // of an expert
  Product into_latent_{.weight = Weight::kNone}, from_latent_{};
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
