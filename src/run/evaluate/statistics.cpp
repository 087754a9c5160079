#include "evaluate/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace sluice::evaluate {
namespace {

constexpr double kZ95 = 1.959963984540054;  // the normal distribution's 97.5 % quantile
constexpr double kTrim = 0.1;

// log Σ exp(logit) = top + log, kept apart because the sum loses log beside a huge top.
struct LogSum {
  double top, log;
  double less(float logit) const { return top - static_cast<double>(logit) + log; }
};

LogSum log_sum_exp(std::span<const float> logits) {
  const double top = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return {top, std::log(sum)};
}

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Of Σ nll / Σ tokens, windows being the independent samples.
double ratio_standard_error(std::span<const WindowScore> windows, double nats, double tokens) {
  if (windows.size() < 2) return 0;
  double sum = 0;
  for (const WindowScore& window : windows) {
    const double residual = window.nll_sum - nats * static_cast<double>(window.tokens);
    sum += residual * residual;
  }
  const double n = static_cast<double>(windows.size());
  return std::sqrt(sum * n / (n - 1)) / tokens;
}

double trimmed_mean(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t cut = static_cast<size_t>(static_cast<double>(values.size()) * kTrim);
  return mean(std::span(values).subspan(cut, values.size() - 2 * cut));
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, uint32_t token) {
  return log_sum_exp(logits).less(logits[token]);
}

void log_softmax(std::span<float> logits) {
  const LogSum sum = log_sum_exp(logits);
  for (float& logit : logits) logit = static_cast<float>(-sum.less(logit));
}

double kl_divergence(std::span<const float> log_p, std::span<const float> log_q) {
  SLUICE_CHECK(log_p.size() == log_q.size());
  double sum = 0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double p = std::exp(static_cast<double>(log_p[i]));
    sum += std::exp(static_cast<double>(log_q[i])) - p;
    if (p > 0) sum += p * (static_cast<double>(log_p[i]) - static_cast<double>(log_q[i]));
  }
  return std::max(0.0, sum);  // the last bit of what cancels may be negative
}

uint32_t largest(std::span<const float> values) {
  return static_cast<uint32_t>(std::ranges::max_element(values) - values.begin());
}

Estimate mean_of(std::span<const double> values) {
  const double center = mean(values);
  if (values.size() < 2) return {center, center, center};
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  const double n = static_cast<double>(values.size());
  const double half = kZ95 * std::sqrt(sum / (n - 1) / n);
  return {center, center - half, center + half};
}

Estimate mean_over_tokens(std::span<const WindowScore> windows) {
  SLUICE_CHECK(!windows.empty());
  double sum = 0, tokens = 0;
  for (const WindowScore& window : windows) {
    SLUICE_CHECK(window.tokens > 0);
    sum += window.nll_sum;
    tokens += static_cast<double>(window.tokens);
  }
  const double center = sum / tokens;
  const double half = kZ95 * ratio_standard_error(windows, center, tokens);
  return {center, center - half, center + half};
}

Estimate proportion(size_t hits, size_t count) {
  if (count == 0) return {0, 0, 1};
  const double n = static_cast<double>(count), p = static_cast<double>(hits) / n;
  const double z2 = kZ95 * kZ95;
  const double center = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kZ95 / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {p, std::max(0.0, center - half), std::min(1.0, center + half)};
}

Perplexity summarize(std::span<const WindowScore> windows) {
  SLUICE_CHECK(!windows.empty());
  Perplexity result;
  result.windows = windows.size();
  std::vector<double> means;
  const Estimate nats = mean_over_tokens(windows);
  for (const WindowScore& window : windows) {
    result.tokens += window.tokens;
    means.push_back(window.nll_sum / static_cast<double>(window.tokens));
  }
  result.nats = nats.mean;
  result.perplexity = {std::exp(nats.mean), std::exp(nats.low), std::exp(nats.high)};
  result.median = std::exp(quantile(means, 0.5));
  result.trimmed = std::exp(trimmed_mean(std::move(means)));
  return result;
}

double quantile(std::vector<double> values, double q) {
  SLUICE_CHECK(!values.empty() && q >= 0 && q <= 1);
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const size_t low = static_cast<size_t>(place);
  const size_t high = std::min(low + 1, values.size() - 1);
  return std::lerp(values[low], values[high], place - static_cast<double>(low));
}

}  // namespace sluice::evaluate
