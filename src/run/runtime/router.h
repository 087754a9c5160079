// Routers: from a row's logits to its experts and their weights, in f32 and on the host, because
// the choice decides what is read next. The same for every back-end.
#pragma once

#include <span>
#include <vector>

#include "kernels/layer_ops.h"
#include "model/backend.h"

namespace sluice::runtime {

// Of all experts of a layer; empty where the rule has none.
struct RouterFactors {
  std::span<const float> correction, scale;
};

// One thread.
class Router {
 public:
  explicit Router(const kernels::LayerOps& ops) : ops_(ops) {}
  void reserve(size_t choices) { choices_.reserve(choices); }
  // logits [rows, rule.experts], overwritten. rule.top_k choices for each row, until the next call.
  std::span<const model::Choice> choose(std::span<float> logits, const model::RouterRule& rule,
                                        const RouterFactors& factors);

 private:
  void choose_by_score(std::span<float> logits, const model::RouterRule& rule,
                       std::span<model::Choice> out);
  void choose_of_chosen(std::span<float> logits, const model::RouterRule& rule,
                        std::span<model::Choice> out);
  void choose_sparse_mixer(std::span<float> logits, const model::RouterRule& rule,
                           std::span<model::Choice> out);
  void drop_groups(std::span<float> scores, const model::RouterRule& rule);

  const kernels::LayerOps& ops_;
  RouterFactors factors_;  // of the call
  std::vector<model::Choice> choices_;
  std::vector<uint32_t> top_;
  std::vector<float> scores_, group_scores_;  // of a row's experts, and of their groups
};

}  // namespace sluice::runtime
