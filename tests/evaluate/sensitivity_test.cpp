// Measured sensitivities: the noise has the size it says, KL grows with its square, what was
// measured before an interruption is not measured again, groups share a pass.
#include "evaluate/sensitivity.h"

#include <gmock/gmock.h>

#include <cmath>

#include "io/fault.h"
#include "runtime/engines.h"

namespace sluice::evaluate {
namespace {

using runtime::Opened;

constexpr uint64_t kVocabulary = 64;

const Json kHeader = {{"kind", "test"}};

Opened open_model(int layers = 2) {
  return runtime::open_engine(
      test::tiny_llama({.dtype = numerics::DType::kF32, .layers = layers}).build(),
      runtime::f32_options());
}

std::vector<Window> some_windows() {
  std::vector<Window> windows;
  for (const uint64_t seed : {1, 2, 3})
    windows.push_back({runtime::random_tokens(40, kVocabulary, seed), 1});
  return windows;
}

std::vector<SensitivityModule> modules_of(int layers) {
  std::vector<SensitivityModule> modules = {{"model.embed_tokens.weight", "embedding", -1},
                                            {"lm_head.weight", "head", -1}};
  for (int layer = 0; layer < layers; ++layer)
    for (const auto& [name, role] :
         {std::pair{"self_attn.q_proj", "attention_q"},
          std::pair{"self_attn.v_proj", "attention_v"}, std::pair{"mlp.down_proj", "mlp_down"}})
      modules.push_back({fmt::format("model.layers.{}.{}.weight", layer, name), role, layer});
  return modules;
}

struct Measuring {
  std::shared_ptr<runtime::Engine> engine;
  std::vector<Window> windows = some_windows();
  std::vector<SensitivityModule> modules;
  SensitivityOptions options{.simd = test::widest_simd()};
  io::MemoryStorage storage;
  SensitivityCost cost;

  Result<Sensitivity> run(const CancelToken* cancel = nullptr) {
    SLUICE_ASSIGN(FinishedWork finished, FinishedWork::open(storage, "work/journal", kHeader));
    return go_on(finished, cancel);
  }
  Result<Sensitivity> go_on(FinishedWork& finished, const CancelToken* cancel = nullptr) {
    NullProgress progress;
    return measure_sensitivity(
        *engine, windows, modules, options, finished,
        [&](const SensitivityCost& found) { cost = found; }, progress, cancel);
  }
};

Measuring measuring(const Opened& opened, std::vector<SensitivityModule> modules) {
  Measuring m;
  test::make_work_folder(m.storage);
  m.engine = opened.engine;
  m.modules = std::move(modules);
  return m;
}

TEST(SignNoise, HasItsSizeInEveryGroupAndNoBias) {
  test::Random random(5);
  const std::vector<float> row = random.normals(1000, 0.3f);
  std::vector<float> delta(row.size()), again(row.size());
  const runtime::RowChange noise = sign_noise("a.weight", 0.1, 1);
  noise(3, row, delta);
  double product = 0;
  for (size_t first = 0; first < row.size(); first += 64) {
    double squares = 0, errors = 0;
    for (size_t i = first; i < std::min(first + 64, row.size()); ++i) {
      squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
      errors += static_cast<double>(delta[i]) * static_cast<double>(delta[i]);
      product += static_cast<double>(row[i]) * static_cast<double>(delta[i]);
    }
    EXPECT_NEAR(std::sqrt(errors / squares), 0.1, 1e-6);
  }
  EXPECT_LT(std::abs(product), 0.1 * 4 * 0.1 * 0.3 * std::sqrt(1000.0));
  noise(3, row, again);
  EXPECT_EQ(delta, again);
  for (const runtime::RowChange& other :
       {sign_noise("b.weight", 0.1, 1), sign_noise("a.weight", 0.1, 2)}) {
    other(3, row, again);
    EXPECT_NE(delta, again);
  }
  noise(4, row, again);
  EXPECT_NE(delta, again);
}

TEST(Sensitivity, GrowsWithTheSquareOfTheNoise) {
  const Opened opened = open_model();
  Measuring small = measuring(opened, modules_of(2)), large = measuring(opened, modules_of(2));
  small.options.noise = 0.02;
  large.options.noise = 0.04;
  const auto a = small.run(), b = large.run();
  ASSERT_TRUE(a.has_value() && b.has_value());
  EXPECT_EQ(a->passes, small.modules.size());
  EXPECT_EQ(a->tokens, 3 * 39u);
  for (size_t i = 0; i < a->modules.size(); ++i) {
    EXPECT_EQ(a->modules[i].name, small.modules[i].name);
    EXPECT_EQ(a->modules[i].together, 1u);
    EXPECT_GT(a->modules[i].alpha, 0);
    EXPECT_NEAR(b->modules[i].alpha / a->modules[i].alpha, 1, 0.2) << a->modules[i].name;
  }
}

// The engine computes as ever afterwards, and the same is found however it is opened.
TEST(Sensitivity, DoesNotDependOnThreadsAndLeavesNoTrace) {
  const Opened opened = open_model();
  Measuring first = measuring(opened, modules_of(2));
  const auto a = first.run();
  Measuring second = measuring(opened, modules_of(2));
  const auto b = second.run();
  const Opened other = runtime::open_engine(
      test::tiny_llama({.dtype = numerics::DType::kF32}).build(), runtime::f32_options(), 1);
  Measuring third = measuring(other, modules_of(2));
  third.options.simd = SimdLevel::kScalar;
  const auto c = third.run();
  ASSERT_TRUE(a.has_value() && b.has_value() && c.has_value());
  EXPECT_EQ(a->modules, b->modules);
  EXPECT_EQ(a->modules, c->modules);
}

TEST(Sensitivity, GoesOnWhereItStopped) {
  const Opened opened = open_model();
  Measuring whole = measuring(opened, modules_of(2));
  const auto expected = whole.run();
  ASSERT_TRUE(expected.has_value());
  const uint64_t pieces = 1 + whole.windows.size() * whole.modules.size();
  for (const size_t kept : {0u, 1u, 5u, 20u}) {
    Measuring again = measuring(opened, modules_of(2));
    auto finished = FinishedWork::open(whole.storage, "work/journal", kHeader);
    ASSERT_TRUE(finished.has_value());
    ASSERT_EQ(finished->pieces().size(), pieces);
    auto part = FinishedWork::open(again.storage, "work/journal", kHeader);
    for (size_t i = 0; i < kept; ++i) ASSERT_TRUE(part->add(finished->pieces()[i]).has_value());
    const auto found = again.go_on(*part);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->modules, expected->modules) << kept;
    EXPECT_EQ(part->pieces().size(), pieces);
  }
}

TEST(Sensitivity, WithoutTimeForEachModuleTheyShareAPass) {
  const Opened opened = open_model(4);
  Measuring m = measuring(opened, modules_of(4));
  // How many passes there is time for is decided once: here in place of a clock.
  auto finished = FinishedWork::open(m.storage, "work/journal", kHeader);
  ASSERT_TRUE(finished->add({{"passes", 9}}).has_value());
  const auto found = m.go_on(*finished);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_LE(found->passes, 9u);
  EXPECT_LT(m.cost.groups_first, m.modules.size());
  size_t together = 0;
  for (const MeasuredModule& module : found->modules) {
    EXPECT_GT(module.alpha, 0);
    together += module.together > 1;
  }
  EXPECT_GT(together, 0u);
  // Another run of the same finds the same, with nothing left to measure.
  const auto again = m.run();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->modules, found->modules);
}

TEST(Sensitivity, TooLittleTimeIsRefusedWithTheLeast) {
  const Opened opened = open_model();
  Measuring m = measuring(opened, modules_of(2));
  m.options.seconds_max = 1e-9;
  const auto found = m.run();
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(found.error().message, testing::HasSubstr("one for each role"));
}

TEST(Sensitivity, StopsWhenCancelled) {
  const Opened opened = open_model();
  Measuring m = measuring(opened, modules_of(2));
  CancelToken cancel;
  cancel.cancel();
  const auto found = m.run(&cancel);
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kCancelled);
}

TEST(Sensitivity, UnknownModulesAreLeftOut) {
  const Opened opened = open_model();
  const std::vector<SensitivityModule> modules = {{"lm_head.weight", "head", -1},
                                                  {"vision.proj.weight", "other", -1}};
  const auto known = measurable(*opened.engine, modules);
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0].name, "lm_head.weight");
}

TEST(SensitivityTable, HasMeansForWhatWasNotMeasuredAndAFloor) {
  const Sensitivity measured{
      .modules = {{"a", "mlp_up", 3, 1}, {"b", "mlp_up", 1, 1}, {"c", "head", 0, 2}},
      .passes = 3,
      .tokens = 100};
  const auto table = parse_json(sensitivity_table(measured, {{"model", "m"}}), "table");
  ASSERT_TRUE(table.has_value());
  EXPECT_EQ((*table)["unit"], "nats");
  EXPECT_EQ((*table)["roles"]["mlp_up"]["alpha"], 2);
  EXPECT_NEAR((*table)["default"]["alpha"].get<double>(), 4.0 / 3, 1e-12);
  EXPECT_EQ((*table)["modules"]["a"], 3);
  EXPECT_NEAR((*table)["modules"]["c"].get<double>(), kAlphaShareMin * 4 / 3, 1e-12);
  EXPECT_EQ((*table)["measurement"]["model"], "m");
  EXPECT_EQ((*table)["measurement"]["passes"], 3);
}

TEST(FinishedWork, BelongsToOneThingAlone) {
  io::MemoryStorage storage;
  test::make_work_folder(storage);
  auto begun = FinishedWork::open(storage, "work/journal", kHeader);
  ASSERT_TRUE(begun.has_value());
  ASSERT_TRUE(begun->add({{"n", 1}}).has_value());
  const auto again = FinishedWork::open(storage, "work/journal", kHeader);
  ASSERT_TRUE(again.has_value());
  EXPECT_THAT(again->pieces(), testing::ElementsAre(Json{{"n", 1}}));
  const auto other = FinishedWork::open(storage, "work/journal", {{"kind", "other"}});
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(other.error().message, testing::HasSubstr("belongs to another model"));
}

}  // namespace
}  // namespace sluice::evaluate
