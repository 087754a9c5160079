// Which candidates become options: floors, configs, encoders, fallbacks, and damaged analyses.
#include "allocate/problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "allocate/synthetic.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;
using synthetic::Random;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Candidate make(unsigned bits, unsigned group, Encoder encoder, double sqnr) {
  Candidate candidate;
  if (bits < 16)
    candidate.format = {QuantMode::kAffine, static_cast<uint8_t>(bits),
                        static_cast<uint16_t>(group)};
  candidate.encoder = encoder;
  candidate.bytes = bits < 16 ? 1024 / 8 * bits + 1024 / group * 4 : 2048;
  candidate.error = synthetic::stats_at(sqnr, 10);
  if (sqnr == kInfinity) candidate.error.squared_error = 0;
  candidate.worst_expert_sqnr_db = sqnr;
  return candidate;
}

Item item_with(std::vector<Candidate> candidates) {
  Item item;
  item.path = "model.layers.1.mlp.up_proj";
  item.parameter = "weight";
  item.role = "mlp_up";
  item.layer = 1;
  item.elements = 1024;
  item.quantizable = true;
  item.candidates = std::move(candidates);
  return item;
}

std::vector<uint32_t> chosen(const Item& item, const ProblemSettings& settings) {
  const std::vector<double> weights = {2.0};
  const auto problem = build_problem(std::span(&item, 1), weights, settings);
  EXPECT_TRUE(problem.has_value()) << problem.error().message;
  std::vector<uint32_t> candidates;
  for (const Option& option : problem->options_of(0)) candidates.push_back(option.candidate);
  return candidates;
}

TEST(BuildProblem, CostIsWeightTimesSquaredRelativeError) {
  const Item item =
      item_with({make(4, 64, Encoder::kParity, 20), make(16, 0, Encoder::kCast, kInfinity)});
  const std::vector<double> weights = {2.0};
  ProblemSettings settings;
  Problem problem = *build_problem(std::span(&item, 1), weights, settings);
  EXPECT_NEAR(problem.find(0, 0)->cost, 2 * 0.01, 1e-12);
  EXPECT_EQ(problem.find(0, 1)->cost, 0);
  EXPECT_EQ(problem.find(0, 2), nullptr);
  EXPECT_EQ(problem.elements, 1024u);
  settings.objective = Objective::kNrmseLinear;
  problem = *build_problem(std::span(&item, 1), weights, settings);
  EXPECT_NEAR(problem.find(0, 0)->cost, 2 * 0.1, 1e-12);
}

TEST(BuildProblem, FloorJudgesBestByParity) {
  const Item item =
      item_with({make(2, 32, Encoder::kParity, 8.8), make(2, 32, Encoder::kBest, 10.5),
                 make(3, 64, Encoder::kParity, 15.5), make(3, 64, Encoder::kBest, 16.6),
                 make(16, 0, Encoder::kCast, kInfinity)});
  ProblemSettings settings;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{2, 3, 4}));
  settings.sqnr_floor_db = 8.7;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0, 1, 2, 3, 4}));
  settings.sqnr_floor_db = 16;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{4}));
  settings.sqnr_floor_db = -kInfinity;
  EXPECT_EQ(chosen(item, settings).size(), 5u);
}

TEST(BuildProblem, FloorJudgesEachEncoderByItself) {
  const Item item =
      item_with({make(2, 32, Encoder::kParity, 8.8), make(2, 32, Encoder::kBest, 10.5),
                 make(2, 64, Encoder::kParity, 8.0), make(2, 64, Encoder::kBest, 8.9),
                 make(16, 0, Encoder::kCast, kInfinity)});
  ProblemSettings settings;
  settings.floor_by_encoder = true;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{1, 4}));
}

TEST(BuildProblem, FloorIsExactAtItsOwnValue) {
  // Powers of ten make the comparison exact: 10 dB is an error of exactly a tenth.
  Item item =
      item_with({make(4, 64, Encoder::kParity, 20), make(16, 0, Encoder::kCast, kInfinity)});
  item.candidates[0].error = {1.0, 10.0, 0.5};
  item.candidates[0].worst_expert_sqnr_db = 10;
  ProblemSettings settings;
  settings.sqnr_floor_db = 10;
  EXPECT_EQ(chosen(item, settings).size(), 2u);
  settings.sqnr_floor_db = 10.001;
  EXPECT_EQ(chosen(item, settings).size(), 1u);
}

TEST(BuildProblem, FloorCountsTheWorstExpert) {
  Item item =
      item_with({make(3, 64, Encoder::kParity, 15.5), make(16, 0, Encoder::kCast, kInfinity)});
  item.candidates[0].worst_expert_sqnr_db = 7.5;
  EXPECT_EQ(chosen(item, {}), (std::vector<uint32_t>{1}));
}

TEST(BuildProblem, RoutersKeepTheirFloor) {
  Item item =
      item_with({make(4, 64, Encoder::kParity, 21), make(6, 64, Encoder::kParity, 34),
                 make(8, 64, Encoder::kParity, 45), make(16, 0, Encoder::kCast, kInfinity)});
  item.bits_floor = 8;
  EXPECT_EQ(chosen(item, {}), (std::vector<uint32_t>{2, 3}));
}

TEST(BuildProblem, EncodersAndConfigsFilter) {
  const Item item =
      item_with({make(4, 64, Encoder::kParity, 21), make(4, 64, Encoder::kBest, 22),
                 make(4, 32, Encoder::kLossless, kInfinity), make(5, 64, Encoder::kParity, 27),
                 make(16, 0, Encoder::kCast, kInfinity)});
  ProblemSettings settings;
  settings.allow_best = false;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0, 2, 3, 4}));
  settings.configs = *parse_configs("mint-v1");
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0, 2, 4}));
  settings.configs = *parse_configs("mint-v2");
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0, 2, 3, 4}));
  settings.configs = *parse_configs("5/64");
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{3}));
}

TEST(BuildProblem, NothingLeftFallsBackToTheMostExact) {
  // 172 columns: no group fits, so analysis offers 16-bit alone, whatever the configs say.
  const Item item = item_with({make(16, 0, Encoder::kCast, kInfinity)});
  ProblemSettings settings;
  settings.configs = *parse_configs("4/64");
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0}));

  const Item lossless =
      item_with({make(4, 32, Encoder::kLossless, kInfinity), make(2, 64, Encoder::kParity, 5)});
  EXPECT_EQ(chosen(lossless, settings), (std::vector<uint32_t>{0}));
}

TEST(BuildProblem, ZeroTensorHasNoErrorAndInfiniteCostsAreNoOptions) {
  Item item = item_with({make(2, 64, Encoder::kParity, 20), make(4, 64, Encoder::kParity, 20),
                         make(16, 0, Encoder::kCast, kInfinity)});
  item.candidates[0].error = {0, 0, 0};
  item.candidates[0].worst_expert_sqnr_db = kInfinity;
  item.candidates[1].error = {1e-9, 0, 1e-5};  // zeros, not stored as zeros
  item.candidates[2].error = {0, 0, 0};
  EXPECT_EQ(chosen(item, {}), (std::vector<uint32_t>{0, 2}));
  ProblemSettings settings;
  settings.sqnr_floor_db = -kInfinity;
  EXPECT_EQ(chosen(item, settings), (std::vector<uint32_t>{0, 2}));
}

TEST(BuildProblem, ModulesThatAreNotQuantizableStayAsTheyAre) {
  Item norm = synthetic::norm_item("model.norm", -1, 64);
  const std::vector<double> weights = {5.0};
  const Problem problem = *build_problem(std::span(&norm, 1), weights, {});
  EXPECT_EQ(problem.options_of(0).size(), 1u);
  EXPECT_EQ(problem.alpha[0], 0);
}

TEST(BuildProblem, DamagedAnalysesAreRefusedByName) {
  const std::vector<double> weights = {1.0};
  const auto refuse = [&](const Item& item, std::string_view words) {
    const auto problem = build_problem(std::span(&item, 1), weights, {});
    ASSERT_FALSE(problem.has_value());
    EXPECT_EQ(problem.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(problem.error().message, HasSubstr(words));
    EXPECT_THAT(problem.error().message, HasSubstr("model.layers.1.mlp.up_proj"));
  };
  refuse(item_with({}), "no candidate");
  Item item = item_with({make(4, 64, Encoder::kParity, 21)});
  item.candidates[0].error.squared_error = -1;
  refuse(item, "negative or not finite");
  item.candidates[0].error.squared_error = kInfinity;
  refuse(item, "negative or not finite");
  item = item_with({make(4, 64, Encoder::kParity, 21)});
  item.candidates[0].worst_expert_sqnr_db = std::nan("");
  refuse(item, "negative or not finite");
  refuse(item_with({make(4, 64, Encoder::kCast, 21)}), "encoder");
  refuse(item_with({make(16, 0, Encoder::kParity, 21)}), "encoder");
  item = item_with({make(4, 64, Encoder::kParity, 21)});
  item.candidates[0].error = {1, 0, 1};
  refuse(item, "infinite error");

  std::vector<Item> two = {item_with({make(4, 64, Encoder::kParity, 21)}),
                           item_with({make(4, 64, Encoder::kParity, 21)})};
  two[0].elements = two[1].elements = UINT64_MAX;
  const std::vector<double> both = {1.0, 1.0};
  EXPECT_FALSE(build_problem(two, both, {}).has_value());
  EXPECT_FALSE(build_problem({}, {}, {}).has_value());
}

TEST(BuildProblem, SettingsThatMakeNoSenseAreRefused) {
  const Item item = item_with({make(4, 64, Encoder::kParity, 21)});
  ProblemSettings settings;
  for (const double floor : {std::nan(""), 1000.0}) {
    settings.sqnr_floor_db = floor;
    const std::vector<double> weights = {1.0};
    const auto problem = build_problem(std::span(&item, 1), weights, settings);
    ASSERT_FALSE(problem.has_value());
    EXPECT_EQ(problem.error().code, ErrorCode::kInvalidArgument);
  }
  settings.sqnr_floor_db = 9;
  for (const double weight : {-1.0, std::nan(""), kInfinity}) {
    const std::vector<double> weights = {weight};
    EXPECT_FALSE(build_problem(std::span(&item, 1), weights, settings).has_value());
  }
}

TEST(Configs, NamesAndLists) {
  EXPECT_TRUE(parse_configs("all")->allows({QuantMode::kAffine, 6, 128}));
  EXPECT_EQ(parse_configs("mint-v1")->formats.size(), 9u);
  EXPECT_EQ(parse_configs("mint-v2")->formats.size(), 14u);
  const ConfigSet list = *parse_configs("8/64,4/64,16-bit,4/64");
  EXPECT_EQ(list.formats.size(), 3u);
  EXPECT_TRUE(list.allows({}));
  EXPECT_FALSE(list.allows({QuantMode::kAffine, 4, 32}));
  for (const char* bad : {"", "4/64,", "7/64", "4/65", "4", "mint", "4/64;8/64"}) {
    const auto configs = parse_configs(bad);
    ASSERT_FALSE(configs.has_value()) << bad;
    EXPECT_EQ(configs.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(ObjectiveNames, RoundTrip) {
  for (const Objective objective : {Objective::kNrmseSquared, Objective::kNrmseLinear})
    EXPECT_EQ(*parse_objective(objective_name(objective)), objective);
  EXPECT_FALSE(parse_objective("perplexity").has_value());
}

}  // namespace
}  // namespace sluice::allocate
