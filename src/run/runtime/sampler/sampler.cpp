// The chain from logits to a token; sampler.h has its order and its promises.
#include "runtime/sampler/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/sampler/random.h"

namespace sluice::runtime {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Logits further below the largest hold less than e⁻²⁰ of its probability each. The cuts by mass
// look at the others first, which saves sorting a vocabulary; if those do not do, at all.
constexpr float kNear = 20;

using Candidate = Sampler::Candidate;

bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

}  // namespace

Status Sampler::check(const SamplerOptions& o, size_t vocab_size) {
  const auto refuse = [](const char* name, const char* range, double found) {
    return fail(ErrorCode::kInvalidArgument, "{} should be {}, found {}", name, range, found);
  };
  if (!(o.temperature >= 0 && std::isfinite(o.temperature)))
    return refuse("temperature", "0 or more", o.temperature);
  if (!(o.typical_p > 0 && o.typical_p <= 1))
    return refuse("typical_p", "above 0 and at most 1", o.typical_p);
  if (!(o.top_p > 0 && o.top_p <= 1)) return refuse("top_p", "above 0 and at most 1", o.top_p);
  if (!(o.min_p >= 0 && o.min_p <= 1)) return refuse("min_p", "between 0 and 1", o.min_p);
  if (!(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty)))
    return refuse("repetition_penalty", "above 0", o.repetition_penalty);
  if (!std::isfinite(o.frequency_penalty))
    return refuse("frequency_penalty", "a finite number", o.frequency_penalty);
  if (!std::isfinite(o.presence_penalty))
    return refuse("presence_penalty", "a finite number", o.presence_penalty);
  for (const LogitBias& bias : o.logit_bias) {
    if (bias.token >= vocab_size) return refuse("logit_bias", "for tokens that exist", bias.token);
    if (!(bias.bias < -kNever)) return refuse("logit_bias", "a number below infinity", bias.bias);
  }
  return {};
}

namespace {

bool is_allowed(std::span<const uint32_t> mask, size_t token) {
  return token / 32 < mask.size() && ((mask[token / 32] >> (token % 32)) & 1u) != 0;
}

// ln Σ e^logit.
double log_total(std::span<const float> logits) {
  double top = -std::numeric_limits<double>::infinity(), total = 0;
  for (const float logit : logits) top = logit > top ? logit : top;
  for (const float logit : logits)
    if (logit > kNever) total += std::exp(logit - top);
  return top + std::log(total);
}

}  // namespace

Sampler::Sampler(SamplerOptions options, size_t vocab_size, const kernels::LayerOps& ops)
    : options_(std::move(options)),
      ops_(&ops),
      logits_(vocab_size),
      weights_(vocab_size),
      counts_(vocab_size),
      candidates_(vocab_size) {}

Result<Sampler> Sampler::open(SamplerOptions options, size_t vocab_size,
                              const kernels::LayerOps& ops) {
  SLUICE_CHECK(vocab_size > 0);
  SLUICE_TRY(check(options, vocab_size));
  return Sampler(std::move(options), vocab_size, ops);
}

Result<uint32_t> Sampler::sample(std::span<const float> logits, std::span<const uint32_t> history,
                                 uint64_t position, std::span<const uint32_t> mask) {
  SLUICE_CHECK(logits.size() == logits_.size());
  std::ranges::copy(logits, logits_.begin());
  change_logits(history, mask);
  if (options_.temperature == 0) return greedy();

  gather_candidates();
  if (kept_ == 0) return fail(ErrorCode::kInvalidArgument, "sampling: no token is left to choose");
  if (options_.typical_p < 1) keep_typical();
  if (options_.top_p < 1) keep_top_p();
  if (options_.min_p > 0) keep_min_p();
  give_probabilities(options_.temperature);
  return draw(random_unit(options_.seed, position));
}

// ---- what changes the logits ----

void Sampler::change_logits(std::span<const uint32_t> history, std::span<const uint32_t> mask) {
  for (const LogitBias& bias : options_.logit_bias) logits_[bias.token] += bias.bias;
  for (size_t token = 0; token < logits_.size(); ++token) {
    float& logit = logits_[token];
    if (std::isnan(logit) || (!mask.empty() && !is_allowed(mask, token))) logit = kNever;
    logit = std::min(logit, std::numeric_limits<float>::max());
  }
  penalize(history.last(std::min(history.size(), options_.penalty_last_n)));
}

void Sampler::penalize(std::span<const uint32_t> history) {
  const SamplerOptions& o = options_;
  if (o.repetition_penalty == 1 && o.frequency_penalty == 0 && o.presence_penalty == 0) return;
  for (const uint32_t token : history)
    if (token < counts_.size()) ++counts_[token];
  for (const uint32_t token : history) {
    if (token >= counts_.size() || counts_[token] == 0) continue;
    float& logit = logits_[token];
    logit = logit > 0 ? logit / o.repetition_penalty : logit * o.repetition_penalty;
    logit -= static_cast<float>(counts_[token]) * o.frequency_penalty + o.presence_penalty;
    counts_[token] = 0;
  }
}

Result<uint32_t> Sampler::greedy() {
  const size_t token = ops_->argmax(logits_);
  kept_ = 0;
  if (logits_[token] == kNever)
    return fail(ErrorCode::kInvalidArgument, "sampling: no token is left to choose");
  candidates_[kept_++] = {static_cast<uint32_t>(token), logits_[token], 1};
  return static_cast<uint32_t>(token);
}

// ---- the list of candidates ----

// All that are above −∞, or the k likeliest, in order; with probabilities.
void Sampler::gather_candidates() {
  const SamplerOptions& o = options_;
  const float top = logits_[ops_->argmax(logits_)];
  const bool by_mass = o.top_k == 0 && o.typical_p == 1 && o.top_p < 1;
  const bool by_part = o.top_k == 0 && o.typical_p == 1 && o.min_p >= 1e-8f;
  sort_candidates(by_mass || by_part ? top - kNear : kNever);
  if (by_mass && !by_part) {
    // The near ones have to hold the mass that top_p asks of all of them.
    double near = 0, total = 0;
    for (size_t i = 0; i < kept_; ++i) near += candidates_[i].probability;
    for (size_t token = 0; token < logits_.size(); ++token)
      if (logits_[token] > kNever) total += weights_[token];
    if (near < double{o.top_p} * total) sort_candidates(kNever);
  }
}

// Keeps the candidates with logits above the cutoff, at most top_k, likeliest first, and sets
// probability to what is not yet divided by a sum.
void Sampler::sort_candidates(float cutoff) {
  const float top = logits_[ops_->argmax(logits_)];
  kept_ = 0;
  if (top == kNever) return;
  for (size_t token = 0; token < logits_.size(); ++token) {
    weights_[token] = logits_[token] - top;
    if (logits_[token] > cutoff)
      candidates_[kept_++] = {static_cast<uint32_t>(token), logits_[token], 0};
  }
  ops_->exp(weights_, weights_);
  const auto begin = candidates_.begin(), end = begin + static_cast<ptrdiff_t>(kept_);
  if (options_.top_k > 0 && options_.top_k < kept_) {
    kept_ = options_.top_k;
    std::partial_sort(begin, begin + static_cast<ptrdiff_t>(kept_), end, likelier);
  } else {
    std::sort(begin, end, likelier);
  }
  for (size_t i = 0; i < kept_; ++i) candidates_[i].probability = weights_[candidates_[i].token];
}

// Probabilities of what is kept, at a temperature > 0; sorted or not.
void Sampler::give_probabilities(double temperature) {
  float top = kNever;
  for (size_t i = 0; i < kept_; ++i) top = std::max(top, candidates_[i].logit);
  for (size_t i = 0; i < kept_; ++i)
    weights_[i] = static_cast<float>((double{candidates_[i].logit} - top) / temperature);
  const std::span<float> weights(weights_.data(), kept_);
  ops_->exp(weights, weights);
  double total = 0;
  for (const float weight : weights) total += weight;
  for (size_t i = 0; i < kept_; ++i) candidates_[i].probability = weights[i] / total;
}

// Tokens in the order of how far −ln p lies from the entropy H = ln Z − Σ p·logit; ln Z falls out
// of the difference, so no logarithm is needed.
void Sampler::keep_typical() {
  give_probabilities(1);
  double mean = 0;
  for (size_t i = 0; i < kept_; ++i) mean += candidates_[i].probability * candidates_[i].logit;
  const auto distance = [mean](const Candidate& c) { return std::abs(mean - c.logit); };
  const auto begin = candidates_.begin(), end = begin + static_cast<ptrdiff_t>(kept_);
  std::sort(begin, end, [&](const Candidate& a, const Candidate& b) {
    return distance(a) != distance(b) ? distance(a) < distance(b) : likelier(a, b);
  });
  double mass = 0;
  size_t count = 0;
  while (count < kept_ && mass < options_.typical_p) mass += candidates_[count++].probability;
  kept_ = count;
  std::sort(begin, begin + static_cast<ptrdiff_t>(kept_), likelier);
}

// Probabilities are of all the candidates before the cut; gather_candidates made sure that the near
// ones suffice where the others were left out.
void Sampler::keep_top_p() {
  double total = 0;
  const bool whole = options_.top_k == 0 && options_.typical_p == 1;
  if (whole) {
    for (size_t token = 0; token < logits_.size(); ++token)
      if (logits_[token] > kNever) total += weights_[token];
  } else {
    give_probabilities(1);
    total = 1;
  }
  double mass = 0;
  size_t count = 0;
  while (count < kept_ && mass < double{options_.top_p} * total)
    mass += candidates_[count++].probability;
  kept_ = count;
}

// Sorted, so a prefix stays; whatever the probabilities' common divisor.
void Sampler::keep_min_p() {
  const double bar = candidates_[0].probability * double{options_.min_p};
  while (kept_ > 1 && candidates_[kept_ - 1].probability < bar) --kept_;
}

uint32_t Sampler::draw(double unit) const {
  double mass = 0;
  for (size_t i = 0; i + 1 < kept_; ++i) {
    mass += candidates_[i].probability;
    if (unit < mass) return candidates_[i].token;
  }
  return candidates_[kept_ - 1].token;
}

// ---- log-probabilities ----

void top_logprobs(std::span<const float> logits, std::span<TokenLogprob> out) {
  SLUICE_CHECK(out.size() <= logits.size());
  const auto key = [&](uint32_t token) {
    return std::isnan(logits[token]) ? kNever : logits[token];
  };
  size_t filled = 0;
  for (uint32_t token = 0; token < logits.size(); ++token) {
    size_t place = filled;
    while (place > 0 && key(token) > key(out[place - 1].token)) --place;
    if (place == out.size()) continue;
    filled = std::min(filled + 1, out.size());
    for (size_t j = filled - 1; j > place; --j) out[j] = out[j - 1];
    out[place].token = token;
  }
  const double total = log_total(logits);
  for (TokenLogprob& one : out) one.logprob = static_cast<float>(key(one.token) - total);
}

float logprob_of(std::span<const float> logits, uint32_t token) {
  SLUICE_CHECK(token < logits.size());
  return static_cast<float>(logits[token] - log_total(logits));
}

}  // namespace sluice::runtime
