// The gate's verdict: all levers stay unless a variant is better beyond chance.
#include "cli/gate.h"

#include <gtest/gtest.h>

namespace sluice::cli {
namespace {

using evaluate::ComparedWindow;
using evaluate::Comparison;

// kl: of each window of 100 tokens, summed.
Comparison scores_of(const std::vector<double>& kl) {
  std::vector<ComparedWindow> windows;
  for (const double sum : kl)
    windows.push_back(
        {.tokens = 100, .agreed = 90, .model_nll = 300 + sum, .reference_nll = 300, .kl = sum});
  return evaluate::summarize_comparison(std::move(windows), {});
}

TEST(Gate, AllLeversStayWhereNothingIsBetter) {
  const std::vector<Comparison> scores{scores_of({1.0, 1.2, 0.9, 1.1}),
                                       scores_of({1.5, 1.8, 1.2, 1.6})};
  EXPECT_EQ(chosen_variant(scores), 0u);
  EXPECT_EQ(chosen_variant(std::span(scores).first(1)), 0u);
}

TEST(Gate, ABetterVariantIsTakenAndOfSeveralTheBest) {
  const std::vector<Comparison> scores{scores_of({1.0, 1.2, 0.9, 1.1}),
                                       scores_of({0.8, 1.0, 0.7, 0.9}),
                                       scores_of({0.5, 0.7, 0.4, 0.6})};
  EXPECT_EQ(chosen_variant(scores), 2u);
}

TEST(Gate, WhatChanceExplainsDecidesNothing) {
  const std::vector<Comparison> scores{scores_of({1.0, 1.2, 0.9, 1.1}),
                                       scores_of({1.9, 0.2, 1.6, 0.3})};
  EXPECT_LT(scores[1].kl.mean, scores[0].kl.mean);
  EXPECT_EQ(chosen_variant(scores), 0u);
}

}  // namespace
}  // namespace sluice::cli
