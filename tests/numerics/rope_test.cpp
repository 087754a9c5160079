// RoPE frequencies against mlx_lm's (tests/numerics/golden/rope.json, written by
// tools/golden_rope.py), angles against their definition, and refused figures.
#include "numerics/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "base/json.h"

namespace sluice::numerics {
namespace {

RopeRule rule_of(const std::string& name) {
  if (name == "linear") return RopeRule::kLinear;
  if (name == "llama3") return RopeRule::kLlama3;
  if (name == "yarn") return RopeRule::kYarn;
  if (name == "dynamic") return RopeRule::kDynamic;
  if (name == "longrope") return RopeRule::kLongrope;
  EXPECT_EQ(name, "default");
  return RopeRule::kDefault;
}

RopeScaling scaling_of(const Json& one) {
  RopeScaling s;
  s.rule = rule_of(one["rule"].get<std::string>());
  s.rotary_dim = one["rotary_dim"].get<size_t>();
  s.rope_theta = one["rope_theta"].get<double>();
  const Json& figures = one["figures"];
  const auto read = [&](const char* key, auto& field) {
    if (figures.contains(key)) field = figures[key].get<std::remove_reference_t<decltype(field)>>();
  };
  const auto read_optional = [&](const char* key, std::optional<double>& field) {
    if (figures.contains(key)) field = figures[key].get<double>();
  };
  read("factor", s.factor);
  read("original_max_position_embeddings", s.original_max_position_embeddings);
  read("max_position_embeddings", s.max_position_embeddings);
  read("low_freq_factor", s.low_freq_factor);
  read("high_freq_factor", s.high_freq_factor);
  read("beta_fast", s.beta_fast);
  read("beta_slow", s.beta_slow);
  read("truncate", s.truncate);
  read("long_factor", s.long_factor);
  read("short_factor", s.short_factor);
  read_optional("mscale", s.mscale);
  read_optional("mscale_all_dim", s.mscale_all_dim);
  return s;
}

// The goldens of mlx_lm are f32 powers, off by a few 1e-6.
TEST(RopeFrequencies, AgreeWithTheReference) {
  const char* source = std::getenv("SLUICE_SOURCE_DIR");
  if (source == nullptr) GTEST_SKIP() << "run by ctest, which names the source folder";
  std::ifstream file(std::string(source) + "/tests/numerics/golden/rope.json");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto golden = parse_json(text, "rope.json");
  ASSERT_TRUE(golden) << golden.error().message;
  size_t checked = 0;
  for (const Json& one : (*golden)["cases"]) {
    const RopeScaling scaling = scaling_of(one);
    const auto got = rope_frequencies(scaling, one["sequence"].get<size_t>());
    ASSERT_TRUE(got) << got.error().message;
    ASSERT_EQ(got->inv_freq.size(), one["inv_freq"].size());
    const double attention = one["attention"].get<double>();
    EXPECT_NEAR(got->attention_factor, attention, 1e-6 * attention) << "case " << checked;
    for (size_t j = 0; j < got->inv_freq.size(); ++j) {
      const double want = one["inv_freq"][j].get<double>();
      EXPECT_NEAR(got->inv_freq[j], want, 5e-6 * want) << "case " << checked << ", pair " << j;
    }
    ++checked;
  }
  EXPECT_GE(checked, 14u);
}

TEST(RopeFrequencies, AnExplicitAttentionFactorWins) {
  RopeScaling s{.rule = RopeRule::kYarn,
                .rotary_dim = 64,
                .factor = 4,
                .original_max_position_embeddings = 4096};
  EXPECT_NEAR(rope_frequencies(s, 1)->attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  s.attention_factor = 1.25;
  EXPECT_EQ(rope_frequencies(s, 1)->attention_factor, 1.25);
}

// Llama-4-Scout by revision: no middle set, so nothing is divided by zero.
TEST(RopeFrequencies, EqualLlama3Factors) {
  const RopeScaling s{.rule = RopeRule::kLlama3,
                      .rotary_dim = 128,
                      .rope_theta = 500000,
                      .factor = 16,
                      .original_max_position_embeddings = 8192,
                      .low_freq_factor = 1,
                      .high_freq_factor = 1};
  const RopeScaling plain{.rotary_dim = 128, .rope_theta = 500000};
  const auto got = rope_frequencies(s, 1), base = rope_frequencies(plain, 1);
  for (size_t j = 0; j < 64; ++j) {
    const double ratio = base->inv_freq[j] / got->inv_freq[j];
    EXPECT_TRUE(ratio == 1 || std::abs(ratio - 16) < 1e-9) << ratio;
  }
}

// Gemma 4: a quarter of the pairs turn, at the speeds that they would have if all did.
TEST(RopeFrequencies, ProportionalPairsStandStill) {
  const RopeScaling s{.rule = RopeRule::kProportional,
                      .rotary_dim = 64,
                      .rope_theta = 1e6,
                      .factor = 2,
                      .rotated_share = 0.25};
  const auto got = rope_frequencies(s, 1);
  ASSERT_TRUE(got);
  ASSERT_EQ(got->inv_freq.size(), 32u);
  for (size_t j = 0; j < 32; ++j)
    EXPECT_DOUBLE_EQ(got->inv_freq[j],
                     j < 8 ? std::pow(1e6, -2.0 * static_cast<double>(j) / 64) / 2 : 0);
  RopeScaling over = s;
  over.rotated_share = 1.5;
  EXPECT_FALSE(rope_frequencies(over, 1));
}

TEST(RopeFrequencies, RefusesWhatGivesNone) {
  const RopeScaling good{.rotary_dim = 64};
  EXPECT_TRUE(rope_frequencies(good, 1));
  const auto refused = [&](auto change) {
    RopeScaling s = good;
    change(s);
    const auto got = rope_frequencies(s, 1);
    return !got && got.error().code == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](RopeScaling& s) { s.rotary_dim = 63; }));
  EXPECT_TRUE(refused([](RopeScaling& s) { s.rotary_dim = 0; }));
  EXPECT_TRUE(refused([](RopeScaling& s) { s.rope_theta = 0; }));
  EXPECT_TRUE(refused([](RopeScaling& s) { s.factor = std::nan(""); }));
  EXPECT_TRUE(refused([](RopeScaling& s) { s.rule = RopeRule::kYarn; }));
  EXPECT_TRUE(refused([](RopeScaling& s) { s.rule = RopeRule::kDynamic; }));
  EXPECT_TRUE(refused([](RopeScaling& s) {
    s.rule = RopeRule::kLongrope;
    s.original_max_position_embeddings = 4096;
    s.long_factor.assign(31, 1);
    s.short_factor.assign(32, 1);
  }));
}

TEST(RopeAngles, AreCosAndSinOfThePosition) {
  const RopeFrequencies frequencies{{1, 0.01, 1e-5}, 1.5};
  float cos[3], sin[3];
  for (const size_t position : {0, 1, 31, 1000000}) {
    rope_angles(frequencies, position, cos, sin);
    for (size_t j = 0; j < 3; ++j) {
      const double angle = static_cast<double>(position) * frequencies.inv_freq[j];
      EXPECT_EQ(cos[j], static_cast<float>(1.5 * std::cos(angle)));
      EXPECT_EQ(sin[j], static_cast<float>(1.5 * std::sin(angle)));
    }
  }
}

}  // namespace
}  // namespace sluice::numerics
