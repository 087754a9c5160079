// What is said of a model from how it scored: figures of rows of logits, and their summaries with
// intervals. Numbers only; nothing here runs a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::evaluate {

// −log p(token) in nats. logits: finite. token < logits.size().
double negative_log_likelihood(std::span<const float> logits, uint32_t token);

// Logits turned into log-probabilities, in f64 inside.
void log_softmax(std::span<float> logits);

// Σ p·(log p − log q) − p + q over log-probabilities, which is KL(p ‖ q) when both sum to one, and
// at least 0 whatever they sum to. The last two terms cancel but for rounding, and make its effect
// second-order: a reference kept in 16-bit steps is good for divergences far below its steps.
double kl_divergence(std::span<const float> log_p, std::span<const float> log_q);

// Index of the largest, the first of equals.
uint32_t largest(std::span<const float> values);

struct WindowScore {
  double nll_sum = 0;  // nats
  size_t tokens = 0;
};

// A mean and its 95 % interval.
struct Estimate {
  double mean = 0, low = 0, high = 0;
};

// The interval is the normal one; equal bounds for fewer than two values.
Estimate mean_of(std::span<const double> values);

// Σ nll / Σ tokens of windows, which are the independent samples (ratio estimator). Equal bounds
// for fewer than two windows; at least one. nll_sum may be any sum over a window's tokens.
Estimate mean_over_tokens(std::span<const WindowScore> windows);

// A proportion with Wilson's interval, which stays inside 0 … 1.
Estimate proportion(size_t hits, size_t count);

struct Perplexity {
  // exp of the mean over tokens; the interval comes from the spread of windows' totals, as tokens
  // of one window are not independent (ratio estimator).
  Estimate perplexity;
  double median = 0;   // exp of the median over windows of their mean
  double trimmed = 0;  // exp of the mean over windows without a tenth at either end
  double nats = 0;     // mean over tokens
  size_t windows = 0, tokens = 0;
};

// windows: at least one, each with tokens.
Perplexity summarize(std::span<const WindowScore> windows);

// q in 0 … 1, linear between neighbours. values: not empty, any order.
double quantile(std::vector<double> values, double q);

}  // namespace sluice::evaluate
