// gpt-oss: biases and sinks, and experts whose gate and up lie by turns, in both published layouts
// and in mlx_lm's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace sluice::families {
namespace {

using numerics::DType;
using numerics::Shape;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kExperts = 3, kWidth = 32, kHidden = 64;
constexpr std::string_view kExpertsPath = "model.layers.0.mlp.experts.";

FakeCheckpoint without_experts() {
  FakeCheckpoint fake({{"model_type", "gpt_oss"},
                       {"hidden_size", kHidden},
                       {"intermediate_size", kWidth},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"head_dim", 32},
                       {"num_local_experts", kExperts},
                       {"num_experts_per_tok", 2},
                       {"vocab_size", 128},
                       {"tie_word_embeddings", false}});
  fake.add("model.embed_tokens.weight", {128, kHidden}).add("lm_head.weight", {128, kHidden});
  fake.add("model.norm.weight", {kHidden});
  const std::string layer = "model.layers.0.", a = layer + "self_attn.";
  fake.add(a + "q_proj.weight", {128, kHidden}).add(a + "q_proj.bias", {128});
  fake.add(a + "k_proj.weight", {64, kHidden}).add(a + "k_proj.bias", {64});
  fake.add(a + "v_proj.weight", {64, kHidden}).add(a + "v_proj.bias", {64});
  fake.add(a + "o_proj.weight", {kHidden, 128}).add(a + "o_proj.bias", {kHidden});
  fake.add(a + "sinks", {4});
  fake.add(layer + "mlp.router.weight", {kExperts, kHidden}).add(layer + "mlp.router.bias", {3});
  fake.add(layer + "input_layernorm.weight", {kHidden});
  fake.add(layer + "post_attention_layernorm.weight", {kHidden});
  return fake;
}

std::string expert(std::string_view name) { return fmt::format("{}{}", kExpertsPath, name); }

FakeCheckpoint& add_fused_biases(FakeCheckpoint& fake) {
  return fake.add(expert("gate_up_proj_bias"), {kExperts, 2 * kWidth})
      .add(expert("down_proj_bias"), {kExperts, kHidden});
}

// As opening the checkpoint joins blocks and scales: [out, in], of type F32.
FakeCheckpoint mxfp4() {
  FakeCheckpoint fake = without_experts();
  fake.add(expert("gate_up_proj_blocks"), {kExperts, 2 * kWidth, kHidden}, DType::kF32);
  fake.add(expert("down_proj_blocks"), {kExperts, kHidden, kWidth}, DType::kF32);
  return add_fused_biases(fake);
}

// In 16 bits: [in, out].
FakeCheckpoint fused() {
  FakeCheckpoint fake = without_experts();
  fake.add(expert("gate_up_proj"), {kExperts, kHidden, 2 * kWidth});
  fake.add(expert("down_proj"), {kExperts, kWidth, kHidden});
  return add_fused_biases(fake);
}

ModelMap mapped(const FakeCheckpoint& fake) {
  auto map = map_model(*fake.build(), "");
  EXPECT_TRUE(map.has_value()) << map.error().message;
  return map ? std::move(*map) : ModelMap{};
}

std::string refused(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? std::string() : map.error().message;
}

const OutputModule& module_named(const ModelMap& map, std::string_view name) {
  for (const OutputModule& module : map.modules)
    if (module.tensor_name() == name) return module;
  ADD_FAILURE() << name;
  return map.modules.front();
}

std::vector<RowRun> runs_of(const OutputModule& module, uint64_t first, uint64_t rows) {
  std::vector<RowRun> runs;
  append_row_runs(module.recipe, first, rows, runs);
  for (RowRun& run : runs) run.tensor = 0;
  return runs;
}

TEST(GptOss, ModulesInTheLoadersOrder) {
  const ModelMap map = mapped(mxfp4());
  std::vector<std::string> names;
  for (const OutputModule& module : map.modules)
    if (module.layer == 0) names.push_back(module.tensor_name().substr(15));
  EXPECT_THAT(
      names,
      ElementsAre("self_attn.sinks", "self_attn.q_proj.weight", "self_attn.q_proj.bias",
                  "self_attn.k_proj.weight", "self_attn.k_proj.bias", "self_attn.v_proj.weight",
                  "self_attn.v_proj.bias", "self_attn.o_proj.weight", "self_attn.o_proj.bias",
                  "mlp.experts.gate_proj.weight", "mlp.experts.gate_proj.bias",
                  "mlp.experts.up_proj.weight", "mlp.experts.up_proj.bias",
                  "mlp.experts.down_proj.weight", "mlp.experts.down_proj.bias", "mlp.router.weight",
                  "mlp.router.bias", "input_layernorm.weight", "post_attention_layernorm.weight"));
  EXPECT_EQ(module_named(map, "model.layers.0.mlp.router.weight").bits_floor, 8);
  EXPECT_FALSE(module_named(map, "model.layers.0.self_attn.sinks").quantizable);
  EXPECT_TRUE(map.dropped.empty());
}

TEST(GptOss, GateAndUpAreRowsByTurns) {
  const ModelMap map = mapped(mxfp4());
  const OutputModule& gate = module_named(map, expert("gate_proj.weight"));
  const OutputModule& up = module_named(map, expert("up_proj.weight"));
  EXPECT_EQ(gate.shape, (Shape{kExperts, kWidth, kHidden}));
  EXPECT_THAT(runs_of(gate, kWidth + 1, 4), ElementsAre(RowRun{0, 2 * kWidth + 2, 4, false, 0, 2}));
  EXPECT_THAT(runs_of(up, kWidth + 1, 4), ElementsAre(RowRun{0, 2 * kWidth + 3, 4, false, 0, 2}));
  const OutputModule& bias = module_named(map, expert("up_proj.bias"));
  EXPECT_EQ(bias.shape, (Shape{kExperts, kWidth}));
  EXPECT_TRUE(bias.by_element);
  EXPECT_EQ(bias.rows(), kExperts * kWidth);
  EXPECT_THAT(runs_of(bias, 0, 5), ElementsAre(RowRun{0, 1, 5, false, 0, 2}));
  const OutputModule& down = module_named(map, expert("down_proj.bias"));
  EXPECT_FALSE(down.by_element);
  EXPECT_EQ(down.rows(), kExperts);
}

TEST(GptOss, SixteenBitExpertsAreTurned) {
  const ModelMap map = mapped(fused());
  const OutputModule& up = module_named(map, expert("up_proj.weight"));
  EXPECT_EQ(up.shape, (Shape{kExperts, kWidth, kHidden}));
  EXPECT_THAT(runs_of(up, kWidth + 1, 4), ElementsAre(RowRun{0, kHidden, 4, true, 3, 2}));
  const OutputModule& down = module_named(map, expert("down_proj.weight"));
  EXPECT_THAT(runs_of(down, 2 * kHidden, 3), ElementsAre(RowRun{0, 2 * kWidth, 3, true, 0, 1}));
}

TEST(GptOss, ConvertedFoldersAreSources) {
  FakeCheckpoint fake = without_experts();
  for (const char* name : {"gate_proj", "up_proj"}) {
    fake.add(expert(name) + ".weight", {kExperts, kWidth, kHidden});
    fake.add(expert(name) + ".bias", {kExperts, kWidth});
  }
  fake.add(expert("down_proj.weight"), {kExperts, kHidden, kWidth});
  fake.add(expert("down_proj.bias"), {kExperts, kHidden});
  const ModelMap map = mapped(fake);
  EXPECT_THAT(runs_of(module_named(map, expert("gate_proj.weight")), 0, 9),
              ElementsAre(RowRun{0, 0, 9}));
  EXPECT_FALSE(module_named(map, expert("gate_proj.bias")).by_element);
}

TEST(GptOss, WhatIsMissingOrWrongIsNamed) {
  FakeCheckpoint no_sinks = mxfp4();
  no_sinks.remove("model.layers.0.self_attn.sinks");
  EXPECT_THAT(refused(no_sinks), HasSubstr("model.layers.0.self_attn.sinks [4]"));
  FakeCheckpoint turned = fused();
  turned.at(expert("gate_up_proj")).shape = {kExperts, 2 * kWidth, kHidden + 1};
  EXPECT_THAT(refused(turned), HasSubstr("should have shape [3, 64, 64] and has [3, 64, 65]"));
  FakeCheckpoint narrow = mxfp4();
  narrow.at(expert("gate_up_proj_bias")).shape = {kExperts, kWidth};
  EXPECT_THAT(refused(narrow), HasSubstr("gate_up_proj_bias should have shape [3, 64]"));
  FakeCheckpoint tied = mxfp4();
  tied.set("tie_word_embeddings", true).remove("lm_head.weight");
  EXPECT_THAT(refused(tied), HasSubstr("head of their own"));
}

}  // namespace
}  // namespace sluice::families
