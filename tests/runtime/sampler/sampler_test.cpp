// The sampler: each option against its definition, the draw against its distribution (chi-square),
// and the same token for a seed everywhere.
#include "runtime/sampler/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "runtime/sampler/random.h"
#include "support/seed.h"

namespace sluice::runtime {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

const kernels::LayerOps& ops() { return kernels::layer_ops(detect_cpu().simd); }

Sampler make(const SamplerOptions& options, size_t vocab_size) {
  auto sampler = Sampler::open(options, vocab_size, ops());
  EXPECT_TRUE(sampler) << sampler.error().message;
  return *std::move(sampler);
}

// The tokens that could have been drawn, likeliest first.
std::vector<uint32_t> kept(const SamplerOptions& options, const std::vector<float>& logits,
                           const std::vector<uint32_t>& history = {},
                           const std::vector<uint32_t>& mask = {}) {
  Sampler sampler = make(options, logits.size());
  EXPECT_TRUE(sampler.sample(logits, history, 0, mask));
  std::vector<uint32_t> tokens;
  double total = 0;
  for (const auto& candidate : sampler.candidates()) {
    tokens.push_back(candidate.token);
    total += candidate.probability;
  }
  EXPECT_NEAR(total, 1, 1e-6);
  return tokens;
}

std::vector<float> logs(std::initializer_list<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

using Tokens = std::vector<uint32_t>;

class SamplerTest : public testing::Test {
 protected:
  std::vector<float> random_logits(size_t count, float size) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> logits(count);
    for (float& logit : logits) logit = normal(random_);
    return logits;
  }

  const uint64_t seed_ = test::seed();
  std::mt19937_64 random_{seed_};
};

// ---- random numbers ----

// Written down once: these must never change, on any machine.
TEST(RandomBits, AreTheSameEverywhere) {
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15u), 0xe220a8397b1dcdafu);  // SplitMix64's first of seed 0
  EXPECT_EQ(mix_bits(2 * 0x9e3779b97f4a7c15u), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(random_bits(0, 0), mix_bits(0xe220a8397b1dcdafu + 0x9e3779b97f4a7c15u));
  for (uint64_t count = 0; count < 1000; ++count) {
    EXPECT_GE(random_unit(7, count), 0);
    EXPECT_LT(random_unit(7, count), 1);
  }
}

TEST(RandomBits, NeighbouringSeedsAreUnlike) {
  int equal_bits = 0;
  for (uint64_t count = 0; count < 1000; ++count)
    equal_bits += 64 - std::popcount(random_bits(1, count) ^ random_bits(2, count));
  EXPECT_NEAR(equal_bits, 32000, 600);  // five standard deviations
}

// ---- each option ----

TEST(Sampler, GreedyTakesTheFirstOfEquals) {
  Sampler sampler = make({.temperature = 0}, 4);
  EXPECT_EQ(*sampler.sample(std::vector<float>{1, 3, 3, std::nanf("")}, {}, 0), 1u);
  ASSERT_EQ(sampler.candidates().size(), 1u);
  EXPECT_EQ(sampler.candidates()[0].probability, 1);
}

TEST(Sampler, TopK) {
  EXPECT_EQ(kept({.top_k = 2}, {1, 5, 3, 4}), (Tokens{1, 3}));
  EXPECT_EQ(kept({.top_k = 2}, {4, 5, 4, 4}), (Tokens{1, 0}));
  EXPECT_EQ(kept({.top_k = 9}, {1, 5, 3}), (Tokens{1, 2, 0}));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheMass) {
  const auto logits = logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(kept({.top_p = 0.49f}, logits), (Tokens{1}));
  EXPECT_EQ(kept({.top_p = 0.51f}, logits), (Tokens{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.76f}, logits), (Tokens{1, 3, 2}));
  EXPECT_EQ(kept({.top_p = 1e-9f}, logits), (Tokens{1}));
}

// After top-k the mass is of what is left, as in llama.cpp: 0.5 and 0.25 become 2/3 and 1/3.
TEST(Sampler, TopPCountsWhatTopKLeft) {
  EXPECT_EQ(kept({.top_k = 2, .top_p = 0.6f}, logs({0.1, 0.5, 0.15, 0.25})), (Tokens{1}));
}

TEST(Sampler, MinP) {
  EXPECT_EQ(kept({.min_p = 0.4f}, logs({0.1, 0.5, 0.15, 0.25})), (Tokens{1, 3}));
  EXPECT_EQ(kept({.min_p = 1}, logs({0.1, 0.5, 0.15, 0.25})), (Tokens{1}));
}

// Entropy 1.21; −ln p are 2.30, 0.69, 1.90 and 1.39: the second likeliest lies nearest.
TEST(Sampler, Typical) {
  const auto logits = logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(kept({.typical_p = 0.2f}, logits), (Tokens{3}));
  EXPECT_EQ(kept({.typical_p = 0.6f}, logits), (Tokens{1, 3}));
}

TEST(Sampler, CutsSeeProbabilitiesBeforeTemperature) {
  const auto logits = logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(kept({.temperature = 50, .top_p = 0.51f}, logits), (Tokens{1, 3}));
  EXPECT_EQ(kept({.temperature = 50, .min_p = 0.4f}, logits), (Tokens{1, 3}));
}

TEST(Sampler, Penalties) {
  const std::vector<float> logits = {2, -2, 1, 0};
  const auto changed = [&](SamplerOptions options, const Tokens& history) {
    Sampler sampler = make(options, logits.size());
    EXPECT_TRUE(sampler.sample(logits, history, 0));
    std::vector<float> out(logits.size());
    for (const auto& candidate : sampler.candidates()) out[candidate.token] = candidate.logit;
    return out;
  };
  EXPECT_EQ(changed({.repetition_penalty = 2}, {0, 1, 0}), (std::vector<float>{1, -4, 1, 0}));
  EXPECT_EQ(changed({.frequency_penalty = 0.5f}, {0, 0, 3}), (std::vector<float>{1, -2, 1, -0.5f}));
  EXPECT_EQ(changed({.presence_penalty = 0.5f}, {0, 0, 3}),
            (std::vector<float>{1.5f, -2, 1, -0.5f}));
  EXPECT_EQ(changed({.presence_penalty = 1, .penalty_last_n = 1}, {0, 0, 3}),
            (std::vector<float>{2, -2, 1, -1}));
  EXPECT_EQ(changed({.presence_penalty = 1, .penalty_last_n = 0}, {0, 0, 3}), logits);
  EXPECT_EQ(changed({.presence_penalty = 1}, {77}), logits);  // not of this vocabulary
}

TEST(Sampler, PenaltiesDoNotLinger) {
  Sampler sampler = make({.temperature = 0, .presence_penalty = 5}, 3);
  const std::vector<float> logits = {3, 2, 1};
  const Tokens history = {0};
  EXPECT_EQ(*sampler.sample(logits, history, 0), 1u);
  EXPECT_EQ(*sampler.sample(logits, {}, 0), 0u);
}

TEST(Sampler, BiasAndMask) {
  EXPECT_EQ(kept({.temperature = 0, .logit_bias = {{2, 10}}}, {3, 2, 1}), (Tokens{2}));
  EXPECT_EQ(kept({.logit_bias = {{0, -kInf}}}, {3, 2, 1}), (Tokens{1, 2}));
  EXPECT_EQ(kept({}, {3, 2, 1}, {}, {0b101}), (Tokens{0, 2}));
  EXPECT_EQ(kept({.temperature = 0}, {3, 2, 1}, {}, {0b110}), (Tokens{1}));
  std::vector<float> many(70, 0);
  EXPECT_EQ(kept({}, many, {}, {0, 0x80000000u}), (Tokens{63}));  // 64 and on: not in the mask
}

TEST(Sampler, InfinityIsTheLargestNumber) { EXPECT_EQ(kept({}, {1, kInf, 2})[0], 1u); }

TEST(Sampler, SaysWhenNothingIsLeft) {
  for (const float temperature : {0.0f, 1.0f}) {
    Sampler sampler = make({.temperature = temperature}, 3);
    const Tokens nothing = {0};
    EXPECT_FALSE(sampler.sample(std::vector<float>{1, 2, 3}, {}, 0, nothing));
    EXPECT_FALSE(sampler.sample(std::vector<float>(3, -kInf), {}, 0));
    EXPECT_FALSE(sampler.sample(std::vector<float>(3, std::nanf("")), {}, 0));
    EXPECT_EQ(sampler.candidates().size(), 0u);
  }
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const auto refused = [](const SamplerOptions& options, const char* name) {
    const auto sampler = Sampler::open(options, 10, ops());
    ASSERT_FALSE(sampler) << name;
    EXPECT_EQ(sampler.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(sampler.error().message.find(name), std::string::npos) << sampler.error().message;
  };
  refused({.temperature = -1}, "temperature");
  refused({.temperature = kInf}, "temperature");
  refused({.typical_p = 0}, "typical_p");
  refused({.top_p = 1.5f}, "top_p");
  refused({.top_p = std::nanf("")}, "top_p");
  refused({.min_p = -0.1f}, "min_p");
  refused({.repetition_penalty = 0}, "repetition_penalty");
  refused({.frequency_penalty = kInf}, "frequency_penalty");
  refused({.presence_penalty = std::nanf("")}, "presence_penalty");
  refused({.logit_bias = {{10, 1}}}, "logit_bias");
  refused({.logit_bias = {{1, kInf}}}, "logit_bias");
}

// ---- the draw ----

TEST_F(SamplerTest, ASeedAndAPositionGiveAToken) {
  const auto logits = random_logits(500, 2);
  Sampler sampler = make({.seed = seed_}, 500), other = make({.seed = seed_}, 500);
  Tokens first;
  for (uint64_t position = 0; position < 50; ++position)
    first.push_back(*sampler.sample(logits, {}, position));
  for (uint64_t position = 50; position-- > 0;)
    EXPECT_EQ(*other.sample(logits, {}, position), first[position]);
  EXPECT_GT(std::set<uint32_t>(first.begin(), first.end()).size(), 10u);
}

// Pearson's χ² of draws against softmax(logits / T) over the tokens that are kept. With 15 degrees
// of freedom 44.3 is exceeded by chance once in ten thousand, so two tries in a row once in 10⁸.
TEST_F(SamplerTest, DrawsFollowTheDistribution) {
  constexpr size_t kTokens = 16, kDraws = 20000;
  for (const SamplerOptions& base :
       {SamplerOptions{}, SamplerOptions{.temperature = 0.6f}, SamplerOptions{.temperature = 1.7f},
        SamplerOptions{.top_k = 9}, SamplerOptions{.temperature = 1.2f, .top_p = 0.8f}}) {
    const auto logits = random_logits(kTokens, 1);
    const auto chi_square = [&](uint64_t seed) {
      SamplerOptions options = base;
      options.seed = seed;
      Sampler sampler = make(options, kTokens);
      std::vector<double> counts(kTokens), expected(kTokens);
      for (size_t i = 0; i < kDraws; ++i) ++counts[*sampler.sample(logits, {}, i)];
      double total = 0, sum = 0;
      for (const auto& c : sampler.candidates())
        total += expected[c.token] = std::exp(double{logits[c.token]} / options.temperature);
      for (size_t token = 0; token < kTokens; ++token) {
        expected[token] *= kDraws / total;
        if (expected[token] == 0) {
          EXPECT_EQ(counts[token], 0);
          continue;
        }
        sum += std::pow(counts[token] - expected[token], 2) / expected[token];
      }
      return sum;
    };
    if (chi_square(seed_) > 44.3) {
      EXPECT_LE(chi_square(seed_ + 1), 44.3);
    }
  }
}

// Large vocabularies take a short way through the likeliest tokens; it must not show.
TEST_F(SamplerTest, TheShortWayKeepsTheSameTokens) {
  for (const float size : {0.01f, 3.0f, 12.0f})
    for (const float top_p : {0.3f, 0.95f, 0.9999f}) {
      const auto logits = random_logits(5000, size);
      std::vector<uint32_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
      double total = 0, mass = 0;
      for (const float logit : logits) total += std::exp(double{logit} - logits[order[0]]);
      size_t count = 0;
      while (count < order.size() && mass < top_p * total)
        mass += std::exp(double{logits[order[count++]]} - logits[order[0]]);
      const auto got = kept({.top_p = top_p}, logits);
      EXPECT_NEAR(static_cast<double>(got.size()), static_cast<double>(count), 1);
      const size_t common = std::min(count, got.size());
      EXPECT_TRUE(std::equal(got.begin(), got.begin() + static_cast<long>(common), order.begin()));
    }
}

TEST_F(SamplerTest, TablesAgree) {
  const auto logits = random_logits(3000, 3);
  const SamplerOptions options{
      .temperature = 0.8f, .typical_p = 0.95f, .top_p = 0.9f, .min_p = 0.01f, .seed = seed_};
  for (const SimdLevel level : offered_simd_levels(detect_cpu())) {
    auto here = Sampler::open(options, logits.size(), kernels::layer_ops(level));
    Sampler scalar = *Sampler::open(options, logits.size(), kernels::layer_ops(SimdLevel::kScalar));
    for (uint64_t position = 0; position < 20; ++position)
      EXPECT_EQ(*here->sample(logits, {}, position), *scalar.sample(logits, {}, position));
  }
}

// ---- log-probabilities ----

TEST_F(SamplerTest, TopLogprobs) {
  const auto logits = random_logits(300, 4);
  double total = 0;
  for (const float logit : logits) total += std::exp(double{logit});
  std::vector<TokenLogprob> top(20);
  top_logprobs(logits, top);
  for (size_t i = 0; i < top.size(); ++i) {
    EXPECT_NEAR(top[i].logprob, logits[top[i].token] - std::log(total), 1e-5);
    EXPECT_EQ(top[i].logprob, logprob_of(logits, top[i].token));
    if (i > 0) {
      EXPECT_GE(top[i - 1].logprob, top[i].logprob);
    }
  }
  std::vector<TokenLogprob> two(2);
  top_logprobs(std::vector<float>{1, 2, 2, std::nanf("")}, two);
  EXPECT_EQ(two[0].token, 1u);
  EXPECT_EQ(two[1].token, 2u);
}

}  // namespace
}  // namespace sluice::runtime
