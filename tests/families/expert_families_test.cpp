// What sets the tables of single families apart: layouts of experts, widths that mlx_lm insists on,
// tensors that keep their type or are dropped, and what stock mlx_lm could not load.
#include <gmock/gmock.h>

#include "families/complete_checkpoint.h"

namespace sluice::families {
namespace {

using numerics::Shape;
using testing::ElementsAre;
using testing::HasSubstr;

Json config_of(const std::string& family, const Json& own = Json::object()) {
  Json config = tiny_config(family);
  config.update(own);
  return config;
}

FakeCheckpoint checkpoint_of(const Json& config) {
  const Family* family = find_family(config.at("model_type").get<std::string>());
  SLUICE_CHECK(family != nullptr);
  return complete(config, *family);
}

ModelMap mapped(const FakeCheckpoint& fake) {
  auto map = map_model(*fake.build(), "");
  if (!map) ADD_FAILURE() << map.error().message;
  return map ? *std::move(map) : ModelMap{};
}

std::string refused(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? "" : map.error().message;
}

const OutputModule& module(const ModelMap& map, const std::string& name) {
  for (const OutputModule& candidate : map.modules)
    if (candidate.tensor_name() == name) return candidate;
  ADD_FAILURE() << "no module " << name;
  static const OutputModule none;
  return none;
}

Json qwen2_moe() {
  return config_of(
      "qwen2_moe",
      {{"num_experts", 3}, {"moe_intermediate_size", 32}, {"shared_expert_intermediate_size", 48}});
}
Json glm4_moe() {
  return config_of("glm4_moe", {{"head_dim", 32},
                                {"attention_bias", true},
                                {"use_qk_norm", true},
                                {"n_routed_experts", 3},
                                {"n_shared_experts", 2},
                                {"first_k_dense_replace", 1},
                                {"moe_intermediate_size", 32}});
}
Json minimax_m2() { return config_of("minimax_m2", {{"head_dim", 32}, {"num_local_experts", 3}}); }
Json granitemoe() { return config_of("granitemoe", {{"num_local_experts", 3}}); }
Json phimoe() { return config_of("phimoe", {{"num_local_experts", 3}}); }

TEST(ExpertFamilies, EachMapsCompletely) {
  const Json olmoe = config_of("olmoe", {{"num_experts", 3}, {"attention_bias", true}});
  for (const Json& config : {olmoe, qwen2_moe(), glm4_moe(), minimax_m2(), config_of("granite"),
                             granitemoe(), config_of("phi3"), phimoe()}) {
    const FakeCheckpoint fake = checkpoint_of(config);
    SCOPED_TRACE(config.at("model_type").get<std::string>());
    const ModelMap map = mapped(fake);
    EXPECT_EQ(map.family, config.at("model_type").get<std::string>());
    EXPECT_TRUE(map.dropped.empty());
    const auto checkpoint = fake.build();
    for (const OutputModule& each : map.modules) {
      uint64_t rows = 0;
      for (const RowSource& source : each.recipe.sources) {
        rows += source.rows;
        EXPECT_EQ(checkpoint->tensors[source.tensor].info.shape.back(), each.shape.back());
      }
      EXPECT_EQ(rows, each.rows()) << each.tensor_name();
    }
  }
}

TEST(ExpertFamilies, GateOfTheSharedExpertIsOneRow) {
  const ModelMap map = mapped(checkpoint_of(qwen2_moe()));
  const OutputModule& gate = module(map, "model.layers.1.mlp.shared_expert_gate.weight");
  EXPECT_EQ(gate.shape, (Shape{1, 64}));
  EXPECT_TRUE(gate.quantizable);
  EXPECT_EQ(gate.bits_floor, 0);
  EXPECT_EQ(module(map, "model.layers.1.mlp.shared_expert.down_proj.weight").shape,
            (Shape{64, 48}));
}

TEST(ExpertFamilies, Qwen2MoeAsMlxLmLoadsIt) {
  Json config = qwen2_moe();
  config["tie_word_embeddings"] = true;
  EXPECT_THAT(refused(checkpoint_of(config)), HasSubstr("a head of their own"));
  config = qwen2_moe();
  config["mlp_only_layers"] = {1};
  EXPECT_THAT(refused(checkpoint_of(config)), HasSubstr("mlp_only_layers"));
}

TEST(ExpertFamilies, Glm4MoeDropsLayersBehindTheLast) {
  FakeCheckpoint fake = checkpoint_of(glm4_moe());
  fake.add("model.layers.2.eh_proj.weight", {64, 128});
  const ModelMap map = mapped(fake);
  EXPECT_THAT(map.dropped, ElementsAre("model.layers.2.eh_proj.weight"));
  EXPECT_FALSE(module(map, "model.layers.1.mlp.gate.weight").quantizable);
  EXPECT_TRUE(module(map, "model.layers.1.mlp.gate.e_score_correction_bias").keep_dtype);
  EXPECT_EQ(module(map, "model.layers.1.mlp.shared_experts.up_proj.weight").shape, (Shape{64, 64}));
  fake.add("model.layers.1.self_attn.o_proj.bias", {64});
  EXPECT_THAT(refused(fake), HasSubstr("o_proj.bias"));
}

TEST(ExpertFamilies, MinimaxRouters) {
  const FakeCheckpoint fake = checkpoint_of(minimax_m2());
  const ModelMap map = mapped(fake);
  EXPECT_EQ(module(map, "model.layers.0.block_sparse_moe.gate.weight").bits_floor, 8);
  EXPECT_TRUE(module(map, "model.layers.0.block_sparse_moe.e_score_correction_bias").keep_dtype);
  EXPECT_EQ(module(map, "model.layers.0.self_attn.q_norm.weight").shape, (Shape{128}));
  EXPECT_EQ(module(map, "model.layers.0.self_attn.k_norm.weight").shape, (Shape{64}));
  Json without = minimax_m2();
  without["use_qk_norm"] = false;
  for (const OutputModule& each : mapped(checkpoint_of(without)).modules)
    EXPECT_EQ(each.path.find("q_norm"), std::string::npos);
}

// Gate rows come before up rows within each expert.
TEST(ExpertFamilies, GraniteMoeSplitsInputLinear) {
  const FakeCheckpoint fake = checkpoint_of(granitemoe());
  const ModelMap map = mapped(fake);
  const std::string moe = "model.layers.1.block_sparse_moe.";
  const OutputModule& up = module(map, moe + "switch_mlp.up_proj.weight");
  ASSERT_EQ(up.recipe.sources.size(), 3u);
  EXPECT_EQ(up.shape, (Shape{3, 96, 64}));
  EXPECT_EQ(up.recipe.sources[2].first_row, 2u * 192 + 96);
  EXPECT_EQ(module(map, moe + "switch_mlp.gate_proj.weight").recipe.sources[2].first_row, 2u * 192);
  EXPECT_EQ(module(map, moe + "router.layer.weight").bits_floor, 8);
  for (const char* name : {"model.layers.0.self_attn.o_proj.weight", "lm_head.weight",
                           "model.layers.1.block_sparse_moe.switch_mlp.down_proj.weight"}) {
    EXPECT_EQ(module(map, name).uniform_bits, 8) << name;
    EXPECT_EQ(module(map, name).bits_floor, 0) << name;
  }
  EXPECT_EQ(up.uniform_bits, 0);
}

TEST(ExpertFamilies, PhimoeHasBiasesInNormsAndHead) {
  FakeCheckpoint fake = checkpoint_of(phimoe());
  const ModelMap map = mapped(fake);
  EXPECT_EQ(module(map, "model.norm.bias").shape, (Shape{64}));
  EXPECT_EQ(module(map, "lm_head.bias").shape, (Shape{128}));
  fake.remove("model.layers.0.self_attn.v_proj.bias");
  EXPECT_THAT(refused(fake), HasSubstr("v_proj.bias"));
}

}  // namespace
}  // namespace sluice::families
