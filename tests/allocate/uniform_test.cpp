// Uniform plans: what a module gets that cannot take the format, and routers.
#include "allocate/uniform.h"

#include <gtest/gtest.h>

#include "allocate/synthetic.h"

namespace sluice::allocate {
namespace {

using numerics::Encoder;
using numerics::QuantFormat;
using numerics::QuantMode;

const UniformChoice* find(const std::vector<UniformChoice>& plans, unsigned bits, unsigned group,
                          Encoder encoder) {
  for (const UniformChoice& plan : plans)
    if (plan.format.bits == bits && plan.format.group_size == group && plan.encoder == encoder)
      return &plan;
  return nullptr;
}

TEST(Uniform, EveryFormatAndEncoderThatAnalysisOffers) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_8B, 1);
  const std::vector<UniformChoice> plans = uniform_choices(items);
  EXPECT_EQ(plans.size(), 18u + 2u);
  for (const UniformChoice& plan : plans) {
    EXPECT_EQ(plan.choice.size(), items.size());
    EXPECT_EQ(plan.fallback_modules, 0u);
    for (size_t i = 0; i < items.size(); ++i) {
      const Candidate& chosen = items[i].candidates[plan.choice[i]];
      EXPECT_EQ(chosen.format, items[i].quantizable ? plan.format : QuantFormat{});
    }
  }
}

TEST(Uniform, RoutersKeepTheirFloorAtGroup64) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_30B_A3B, 1);
  const std::vector<UniformChoice> plans = uniform_choices(items);
  const UniformChoice* plan = find(plans, 4, 128, Encoder::kParity);
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->fallback_modules, 48u);
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].role == "router") {
      EXPECT_EQ(items[i].candidates[plan->choice[i]].format,
                (QuantFormat{QuantMode::kAffine, 8, 64}));
    }
}

TEST(Uniform, SmallerGroupThenUnquantizedWhereTheShapeDoesNotDivide) {
  synthetic::Random random(1);
  std::vector<Item> items;
  items.push_back(synthetic::typical_item(random, "a", "mlp_up", 0, 64, 128));
  items.push_back(synthetic::typical_item(random, "b", "mlp_up", 0, 64, 96));   // 32 alone
  items.push_back(synthetic::typical_item(random, "c", "mlp_up", 0, 64, 172));  // none
  const std::vector<UniformChoice> plans = uniform_choices(items);
  const UniformChoice* plan = find(plans, 4, 128, Encoder::kParity);
  ASSERT_NE(plan, nullptr);
  const auto format = [&](size_t i) { return items[i].candidates[plan->choice[i]].format; };
  EXPECT_EQ(format(0), (QuantFormat{QuantMode::kAffine, 4, 128}));
  EXPECT_EQ(format(1), (QuantFormat{QuantMode::kAffine, 4, 32}));
  EXPECT_EQ(format(2), QuantFormat{});
  EXPECT_EQ(plan->fallback_modules, 2u);
}

TEST(Uniform, BestFallsBackToParity) {
  synthetic::Random random(1);
  std::vector<Item> items;
  items.push_back(synthetic::typical_item(random, "a", "mlp_up", 0, 64, 128));
  items.push_back(synthetic::typical_item(random, "b", "mlp_up", 0, 64, 128));
  std::erase_if(items[1].candidates,
                [](const Candidate& candidate) { return candidate.encoder == Encoder::kBest; });
  const std::vector<UniformChoice> plans = uniform_choices(items);
  const UniformChoice* plan = find(plans, 4, 64, Encoder::kBest);
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(items[0].candidates[plan->choice[0]].encoder, Encoder::kBest);
  EXPECT_EQ(items[1].candidates[plan->choice[1]].encoder, Encoder::kParity);
  EXPECT_EQ(plan->fallback_modules, 0u);
}

}  // namespace
}  // namespace sluice::allocate
