// The table of weights: the built-in one, user tables, measured modules, tied embeddings, damage.
#include "allocate/sensitivity.h"

#include <gtest/gtest.h>

#include "allocate/synthetic.h"

namespace sluice::allocate {
namespace {

double weight_of(const std::vector<Item>& items, const std::vector<double>& weights,
                 std::string_view path) {
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].path == path) return weights[i];
  ADD_FAILURE() << "no module " << path;
  return -1;
}

TEST(Sensitivity, BuiltinWeighsByRoleAndDepth) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_8B, 1);
  const SensitivityTable table = builtin_sensitivity();
  EXPECT_EQ(table.id().substr(0, 8), "prior-1@");
  const std::vector<double> weights = module_weights(table, items);
  EXPECT_EQ(weight_of(items, weights, "model.layers.5.self_attn.q_proj"), 1);
  EXPECT_EQ(weight_of(items, weights, "model.layers.5.self_attn.v_proj"), 2);
  EXPECT_EQ(weight_of(items, weights, "model.layers.0.self_attn.v_proj"), 6);
  EXPECT_EQ(weight_of(items, weights, "model.layers.35.mlp.down_proj"), 4);
  EXPECT_EQ(weight_of(items, weights, "model.embed_tokens"), 8);
  EXPECT_EQ(weight_of(items, weights, "lm_head"), 3 * 36);
  EXPECT_EQ(weight_of(items, weights, "model.norm"), 0);
}

TEST(Sensitivity, TiedEmbeddingCarriesTheHeadsWeight) {
  const std::vector<Item> items = synthetic::model_items(synthetic::kSmolLM2_135M, 1);
  const std::vector<double> weights = module_weights(builtin_sensitivity(), items);
  EXPECT_EQ(weight_of(items, weights, "model.embed_tokens"), 8 + 3 * 30);
}

TEST(Sensitivity, MeasuredModulesReplaceThePrior) {
  const auto table = parse_sensitivity(
      R"({"version": 1, "name": "measured", "default": {"alpha": 2},
          "modules": {"model.layers.0.self_attn.q_proj.weight": 0.25}})",
      "user.json");
  ASSERT_TRUE(table.has_value()) << table.error().message;
  const std::vector<Item> items = synthetic::model_items(synthetic::kQwen3_8B, 1);
  const std::vector<double> weights = module_weights(*table, items);
  EXPECT_EQ(weight_of(items, weights, "model.layers.0.self_attn.q_proj"), 0.25);
  EXPECT_EQ(weight_of(items, weights, "model.layers.0.self_attn.v_proj"), 2);
  EXPECT_NE(table->id(), builtin_sensitivity().id());
}

TEST(Sensitivity, OnlyNatsPredictDivergence) {
  EXPECT_FALSE(builtin_sensitivity().in_nats);
  const auto in = [](std::string_view unit) {
    return parse_sensitivity(fmt::format(R"({{"version": 1, "name": "x", "unit": {}}})", unit),
                             "user.json");
  };
  ASSERT_TRUE(in("\"nats\"").has_value());
  EXPECT_TRUE(in("\"nats\"")->in_nats);
  ASSERT_FALSE(in("\"bits\"").has_value());
  EXPECT_EQ(in("\"bits\"").error().code, ErrorCode::kUnsupported);
  ASSERT_FALSE(in("3").has_value());
  EXPECT_EQ(in("3").error().code, ErrorCode::kCorrupt);
}

TEST(Sensitivity, DamagedTablesAreRefused) {
  for (const char* text : {
           "",
           "[]",
           "{}",
           R"({"version": 1})",
           R"({"version": "1", "name": "x"})",
           R"({"version": 1, "name": 3})",
           R"({"version": 1, "name": "x", "roles": []})",
           R"({"version": 1, "name": "x", "roles": {"head": 3}})",
           R"({"version": 1, "name": "x", "roles": {"head": {"alpha": -1}}})",
           R"({"version": 1, "name": "x", "roles": {"head": {"alpha": 1e300}}})",
           R"({"version": 1, "name": "x", "roles": {"head": {}}})",
           R"({"version": 1, "name": "x", "depth": {"first_layer": {}}})",
           R"({"version": 1, "name": "x", "modules": {"a.weight": "high"}})",
       }) {
    const auto table = parse_sensitivity(text, "user.json");
    ASSERT_FALSE(table.has_value()) << text;
    EXPECT_EQ(table.error().code, ErrorCode::kCorrupt) << text;
    EXPECT_NE(table.error().message.find("user.json"), std::string::npos);
  }
  const auto newer = parse_sensitivity(R"({"version": 2, "name": "x"})", "user.json");
  ASSERT_FALSE(newer.has_value());
  EXPECT_EQ(newer.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sluice::allocate
