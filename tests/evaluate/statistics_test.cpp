// Scores of logits and their summaries, against figures worked out by hand or by simulation.
#include "evaluate/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/seed.h"

namespace sluice::evaluate {
namespace {

TEST(Scores, UniformLogitsCostTheLogOfTheirNumber) {
  const std::vector<float> logits(1000, 3.0f);
  EXPECT_NEAR(negative_log_likelihood(logits, 17), std::log(1000.0), 1e-12);
}

TEST(Scores, HugeLogitsDoNotOverflow) {
  const std::vector<float> logits = {1e30f, 1e30f, -1e30f};
  EXPECT_NEAR(negative_log_likelihood(logits, 0), std::log(2.0), 1e-9);
}

TEST(Scores, LogSoftmaxSumsToOne) {
  std::vector<float> logits = {1, 2, 3, -4};
  log_softmax(logits);
  double sum = 0;
  for (const float value : logits) sum += std::exp(value);
  EXPECT_NEAR(sum, 1, 1e-6);
  EXPECT_NEAR(logits[2] - logits[0], 2, 1e-6);
}

TEST(Scores, DivergenceIsZeroOfEqualsAndKnownOfTwo) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.5f)};
  const std::vector<float> q = {std::log(0.25f), std::log(0.75f)};
  EXPECT_EQ(kl_divergence(p, p), 0);
  EXPECT_NEAR(kl_divergence(p, q), 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3), 1e-7);
  const std::vector<float> certain = {0, -INFINITY};
  EXPECT_NEAR(kl_divergence(certain, q), std::log(4.0), 1e-7);
}

TEST(Scores, RoundedReferencesHideNoSmallDivergence) {
  std::mt19937_64 random(test::seed());
  std::normal_distribution<float> normal(0, 2);
  std::uniform_real_distribution<float> step(-1.5e-4f, 1.5e-4f);
  double exact = 0, rounded = 0;
  for (int row = 0; row < 50; ++row) {
    std::vector<float> p(300), q(300), stored(300);
    for (size_t i = 0; i < p.size(); ++i) {
      p[i] = normal(random);
      q[i] = p[i] + 0.002f * normal(random);
    }
    log_softmax(p);
    log_softmax(q);
    for (size_t i = 0; i < p.size(); ++i) stored[i] = p[i] + step(random);
    exact += kl_divergence(p, q);
    rounded += kl_divergence(stored, q);
  }
  EXPECT_NEAR(exact / 50, 8e-6, 4e-6);  // far below the steps
  EXPECT_NEAR(rounded / exact, 1, 0.02);
}

TEST(Scores, TheFirstOfEqualsIsLargest) { EXPECT_EQ(largest(std::vector<float>{1, 5, 5, 2}), 1u); }

TEST(Summaries, PerplexityOfEqualWindows) {
  const WindowScore windows[] = {{20, 10}, {20, 10}, {20, 10}};
  const Perplexity found = summarize(windows);
  EXPECT_NEAR(found.perplexity.mean, std::exp(2.0), 1e-12);
  EXPECT_NEAR(found.perplexity.low, found.perplexity.high, 1e-12);
  EXPECT_NEAR(found.median, std::exp(2.0), 1e-12);
  EXPECT_EQ(found.tokens, 30u);
}

TEST(Summaries, OutliersMoveTheMeanOnly) {
  std::vector<WindowScore> windows(19, WindowScore{10, 10});
  windows.push_back({1000, 10});
  const Perplexity found = summarize(windows);
  EXPECT_NEAR(found.median, std::exp(1.0), 1e-12);
  EXPECT_NEAR(found.trimmed, std::exp(1.0), 1e-12);
  EXPECT_GT(found.perplexity.mean, 100);
}

TEST(Summaries, LongWindowsWeighMore) {
  const WindowScore windows[] = {{10, 10}, {90, 30}};
  EXPECT_NEAR(summarize(windows).nats, 2.5, 1e-12);
}

TEST(Summaries, IntervalsHoldWhatTheyPromise) {
  std::mt19937_64 random(test::seed());
  std::normal_distribution<double> noise(0, 1);
  constexpr int kRounds = 2000, kWindows = 60;
  int held = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<WindowScore> windows;
    for (int i = 0; i < kWindows; ++i) windows.push_back({10 * (3 + 0.3 * noise(random)), 10});
    const Estimate found = summarize(windows).perplexity;
    held += found.low <= std::exp(3.0) && std::exp(3.0) <= found.high;
  }
  EXPECT_NEAR(held, 0.95 * kRounds, 0.025 * kRounds);
}

TEST(Summaries, ProportionsStayInBounds) {
  EXPECT_NEAR(proportion(0, 10).low, 0, 1e-12);
  EXPECT_NEAR(proportion(10, 10).high, 1, 1e-12);
  EXPECT_LE(proportion(10, 10).high, 1);
  const Estimate half = proportion(50, 100);
  EXPECT_NEAR(half.low, 0.4038, 1e-3);
  EXPECT_NEAR(half.high, 0.5962, 1e-3);
}

TEST(Summaries, Quantiles) {
  EXPECT_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(quantile({4, 1, 2, 3}, 0.5), 2.5);
  EXPECT_EQ(quantile({7}, 0.99), 7);
}

}  // namespace
}  // namespace sluice::evaluate
