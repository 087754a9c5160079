#include "runtime/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice::runtime {

using model::Choice;
using model::RouterRule;
using model::RouterScore;

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
// Keeps the sum of sigmoids, which may all be 0, from dividing by nothing.
constexpr float kSumEpsilon = 1e-20f;

}  // namespace

// All experts but those of the best groups.
void Router::drop_groups(std::span<float> scores, const RouterRule& rule) {
  const size_t size = scores.size() / rule.groups;
  group_scores_.resize(rule.groups);
  top_.resize(std::min<size_t>(rule.group_best, size));
  for (size_t group = 0; group < rule.groups; ++group) {
    const std::span<const float> members = scores.subspan(group * size, size);
    ops_.top_k(members, top_);
    group_scores_[group] = 0;
    for (const uint32_t member : top_) group_scores_[group] += members[member];
  }
  top_.resize(rule.groups_kept);
  ops_.top_k(group_scores_, top_);
  for (size_t group = 0; group < rule.groups; ++group)
    if (std::ranges::find(top_, group) == top_.end())
      std::ranges::fill(scores.subspan(group * size, size), rule.dropped_score);
}

void Router::choose_by_score(std::span<float> logits, const RouterRule& rule,
                             std::span<Choice> out) {
  const bool sigmoid = rule.score == RouterScore::kSigmoid;
  const bool adjusted = !factors_.correction.empty() || rule.groups > 1;
  scores_.assign(logits.begin(), logits.end());
  if (sigmoid)
    ops_.sigmoid(logits, logits);
  else
    ops_.softmax(logits);
  // Large logits have one sigmoid: where nothing is added to it, they themselves decide.
  if (adjusted || !sigmoid) std::ranges::copy(logits, scores_.begin());
  if (!factors_.correction.empty()) ops_.add(scores_, factors_.correction);
  if (rule.groups > 1) drop_groups(scores_, rule);
  top_.resize(rule.top_k);
  ops_.top_k(scores_, top_);
  float sum = 1;
  if (rule.renormalize) {
    sum = 0;
    for (const uint32_t expert : top_) sum += logits[expert];
    if (sigmoid) sum += kSumEpsilon;
  }
  for (size_t rank = 0; rank < top_.size(); ++rank)
    out[rank] = {top_[rank], logits[top_[rank]] / sum};
}

void Router::choose_of_chosen(std::span<float> logits, const RouterRule& rule,
                              std::span<Choice> out) {
  top_.resize(rule.top_k);
  ops_.top_k(logits, top_);
  scores_.resize(rule.top_k);
  for (size_t rank = 0; rank < top_.size(); ++rank) scores_[rank] = logits[top_[rank]];
  ops_.softmax(scores_);
  for (size_t rank = 0; rank < top_.size(); ++rank) out[rank] = {top_[rank], scores_[rank]};
}

// Phi-3.5-MoE's: an expert's weight is its share of a softmax over those that come near it, and
// those chosen before it are left out.
void Router::choose_sparse_mixer(std::span<float> logits, const RouterRule& rule,
                                 std::span<Choice> out) {
  top_.resize(rule.top_k);
  ops_.top_k(logits, top_);
  scores_.resize(logits.size());
  for (size_t rank = 0; rank < top_.size(); ++rank) {
    const float largest = logits[top_[rank]];
    for (size_t expert = 0; expert < logits.size(); ++expert) {
      const float logit = logits[expert];
      const float bound = 2 * rule.jitter * std::max(std::abs(logit), largest);
      const bool near = largest - logit <= bound;
      scores_[expert] = near ? logit : kLowest;
    }
    for (size_t earlier = 0; earlier < rank; ++earlier) scores_[top_[earlier]] = kLowest;
    scores_[top_[rank]] = largest;
    ops_.softmax(scores_);
    out[rank] = {top_[rank], scores_[top_[rank]]};
  }
}

std::span<const Choice> Router::choose(std::span<float> logits, const RouterRule& rule,
                                       const RouterFactors& factors) {
  factors_ = factors;
  const size_t rows = logits.size() / rule.experts;
  choices_.resize(rows * rule.top_k);
  for (size_t row = 0; row < rows; ++row) {
    const std::span<Choice> out = std::span(choices_).subspan(row * rule.top_k, rule.top_k);
    const std::span<float> own = logits.subspan(row * rule.experts, rule.experts);
    switch (rule.score) {
      case RouterScore::kSoftmax:
      case RouterScore::kSigmoid: choose_by_score(own, rule, out); break;
      case RouterScore::kSoftmaxOfChosen: choose_of_chosen(own, rule, out); break;
      case RouterScore::kSparseMixer: choose_sparse_mixer(own, rule, out); break;
    }
    if (rule.scale != 1)
      for (Choice& choice : out) choice.weight *= rule.scale;
    if (!factors.scale.empty())
      for (Choice& choice : out) choice.weight *= factors.scale[choice.expert];
  }
  return choices_;
}

}  // namespace sluice::runtime
