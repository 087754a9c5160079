// Sums of windows and what they come to, paired differences, and scores as JSON.
#include "evaluate/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/seed.h"

namespace sluice::evaluate {
namespace {

std::vector<ComparedWindow> random_windows(std::mt19937_64& random, size_t count) {
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<ComparedWindow> windows;
  for (size_t i = 0; i < count; ++i) {
    const size_t tokens = 20 + random() % 40;
    windows.push_back({tokens, random() % (tokens + 1), 80 * unit(random), 80 * unit(random),
                       0.3 * unit(random)});
  }
  return windows;
}

TEST(Comparisons, AddUpOverTokens) {
  const Comparison found =
      summarize_comparison({{10, 9, 20, 19, 0.4}, {30, 21, 90, 81, 1.6}}, {0.01, 0.2, 0.4});
  EXPECT_NEAR(found.kl.mean, 2.0 / 40, 1e-12);
  EXPECT_NEAR(found.model.nats, 110.0 / 40, 1e-12);
  EXPECT_NEAR(found.reference.nats, 2.5, 1e-12);
  EXPECT_NEAR(found.agreement.mean, 30.0 / 40, 1e-12);
  EXPECT_LT(found.kl.low, found.kl.mean);
  EXPECT_EQ(found.model.tokens, 40u);
}

TEST(Comparisons, OneWindowHasNoInterval) {
  const Comparison found = summarize_comparison({{10, 9, 20, 19, 0.5}}, {});
  EXPECT_EQ(found.kl.low, found.kl.high);
}

TEST(PairedDifferences, OfAModelAndItselfAreNone) {
  std::mt19937_64 random(7);
  const auto windows = random_windows(random, 9);
  const PairedDifference found = paired_difference(windows, windows);
  EXPECT_EQ(found.kl.low, 0);
  EXPECT_EQ(found.kl.high, 0);
  EXPECT_EQ(found.nll.mean, 0);
}

TEST(PairedDifferences, SeeWhatIntervalsOfEachHide) {
  // Windows differ from each other by far more than the two models do.
  std::vector<ComparedWindow> better, worse;
  for (size_t i = 0; i < 40; ++i) {
    const double hard = static_cast<double>(i);
    better.push_back({100, 90, 200 + hard, 200, hard});
    worse.push_back({100, 90, 200 + hard, 200, hard + 0.5 + 0.01 * static_cast<double>(i % 3)});
  }
  const Comparison a = summarize_comparison(better, {}), b = summarize_comparison(worse, {});
  EXPECT_GT(a.kl.high, b.kl.low);
  const PairedDifference found = paired_difference(worse, better);
  EXPECT_GT(found.kl.low, 0.005);
  EXPECT_LT(found.kl.high, 0.0052);
  EXPECT_NEAR(found.kl.mean, b.kl.mean - a.kl.mean, 1e-12);
}

TEST(PairedDifferences, IntervalsHoldWhatTheyPromise) {
  std::mt19937_64 random(test::seed());
  std::normal_distribution<double> noise(0, 1);
  constexpr int kRounds = 2000;
  int held = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<ComparedWindow> first, second;
    for (int i = 0; i < 60; ++i) {
      const double common = 5 + noise(random);
      first.push_back({10, 10, 10, 10, common + 0.4 + 0.2 * noise(random)});
      second.push_back({10, 10, 10, 10, common + 0.2 * noise(random)});
    }
    const Estimate found = paired_difference(first, second).kl;
    held += found.low <= 0.04 && 0.04 <= found.high;
  }
  EXPECT_NEAR(held, 0.95 * kRounds, 0.025 * kRounds);
}

TEST(Scores, ComeBackToTheLastBit) {
  std::mt19937_64 random(test::seed());
  const Comparison written =
      summarize_comparison(random_windows(random, 20), {0.1 / 3, 1.0 / 7, 1e-9});
  const std::string text = dump_json(comparison_json(written), 1);
  const Comparison read = parse_comparison(parse_json(text, "x").value(), "x").value();
  EXPECT_EQ(read.windows, written.windows);
  EXPECT_EQ(read.spread, written.spread);
  EXPECT_EQ(read.kl.high, written.kl.high);
}

TEST(Scores, AreRefusedWhenTheyCannotBe) {
  const Json good = comparison_json(summarize_comparison({{10, 9, 20, 19, 0.5}}, {}));
  const auto refused = [&](const char* pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    const auto parsed = parse_comparison(json, "scores.json");
    EXPECT_FALSE(parsed) << pointer << value;
    if (!parsed) {
      EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
      EXPECT_NE(parsed.error().message.find("scores.json"), std::string::npos);
    }
  };
  refused("/windows", Json::array());
  refused("/windows", "none");
  refused("/windows/0/0", 0);
  refused("/windows/0/0", 9.5);
  refused("/windows/0/1", 11);
  refused("/windows/0/1", -1);
  refused("/windows/0/2", "x");
  refused("/windows/0/4", -0.5);
  refused("/windows/0/5", 1);
  refused("/kl_p99", nullptr);
  EXPECT_FALSE(parse_comparison(Json::array(), "x"));
}

}  // namespace
}  // namespace sluice::evaluate
