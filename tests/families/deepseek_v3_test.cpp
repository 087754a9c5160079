// DeepSeek V3 and Kimi K2: latent attention split by head, experts, and what is dropped.
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

constexpr uint64_t kHeads = 2, kNope = 8, kRope = 4, kV = 12, kRank = 16, kQRank = 24;

// Layer 0 dense, layer 1 with two experts and one shared.
FakeCheckpoint tiny(const std::string& model_type = "deepseek_v3") {
  FakeCheckpoint fake({{"model_type", model_type},
                       {"hidden_size", 64},
                       {"intermediate_size", 96},
                       {"moe_intermediate_size", 32},
                       {"num_hidden_layers", 2},
                       {"num_attention_heads", kHeads},
                       {"num_key_value_heads", kHeads},
                       {"n_routed_experts", 2},
                       {"n_shared_experts", 1},
                       {"first_k_dense_replace", 1},
                       {"moe_layer_freq", 1},
                       {"q_lora_rank", kQRank},
                       {"kv_lora_rank", kRank},
                       {"qk_nope_head_dim", kNope},
                       {"qk_rope_head_dim", kRope},
                       {"v_head_dim", kV},
                       {"vocab_size", 128},
                       {"tie_word_embeddings", false},
                       {"torch_dtype", "bfloat16"}});
  fake.add("model.embed_tokens.weight", {128, 64}).add("lm_head.weight", {128, 64});
  fake.add("model.norm.weight", {64});
  const auto mlp = [&](const std::string& path, uint64_t width) {
    fake.add(path + "gate_proj.weight", {width, 64}).add(path + "up_proj.weight", {width, 64});
    fake.add(path + "down_proj.weight", {64, width});
  };
  for (int l = 0; l < 2; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l), a = layer + "self_attn.";
    fake.add(a + "q_a_proj.weight", {kQRank, 64}).add(a + "q_a_layernorm.weight", {kQRank});
    fake.add(a + "q_b_proj.weight", {kHeads * (kNope + kRope), kQRank});
    fake.add(a + "kv_a_proj_with_mqa.weight", {kRank + kRope, 64});
    fake.add(a + "kv_a_layernorm.weight", {kRank});
    fake.add(a + "kv_b_proj.weight", {kHeads * (kNope + kV), kRank});
    fake.add(a + "o_proj.weight", {64, kHeads * kV});
    fake.add(layer + "input_layernorm.weight", {64});
    fake.add(layer + "post_attention_layernorm.weight", {64});
  }
  mlp("model.layers.0.mlp.", 96);
  fake.add("model.layers.1.mlp.gate.weight", {2, 64});
  fake.add("model.layers.1.mlp.gate.e_score_correction_bias", {2}, DType::kF32);
  for (const char* owner : {"experts.0.", "experts.1.", "shared_experts."})
    mlp(std::string("model.layers.1.mlp.") + owner, 32);
  return fake;
}

ModelMap mapped(const FakeCheckpoint& fake, std::string_view only_layers = "") {
  auto map = map_model(*fake.build(), "", only_layers);
  EXPECT_TRUE(map.has_value()) << map.error().message;
  return map ? std::move(*map) : ModelMap{};
}

std::string refused(const FakeCheckpoint& fake, std::string_view only_layers = "") {
  const auto map = map_model(*fake.build(), "", only_layers);
  EXPECT_FALSE(map.has_value());
  return map ? std::string() : map.error().message;
}

const OutputModule& module_named(const ModelMap& map, std::string_view name) {
  for (const OutputModule& module : map.modules)
    if (module.tensor_name() == name) return module;
  ADD_FAILURE() << name;
  return map.modules.front();
}

TEST(DeepseekV3, ModulesInTheLoadersOrder) {
  const ModelMap map = mapped(tiny());
  std::vector<std::string> sparse;
  for (const OutputModule& module : map.modules)
    if (module.layer == 1) sparse.push_back(module.tensor_name().substr(15));
  EXPECT_THAT(
      sparse,
      ElementsAre("self_attn.q_a_proj.weight", "self_attn.q_a_layernorm.weight",
                  "self_attn.q_b_proj.weight", "self_attn.kv_a_proj_with_mqa.weight",
                  "self_attn.kv_a_layernorm.weight", "self_attn.embed_q.weight",
                  "self_attn.unembed_out.weight", "self_attn.o_proj.weight",
                  "mlp.switch_mlp.gate_proj.weight", "mlp.switch_mlp.up_proj.weight",
                  "mlp.switch_mlp.down_proj.weight", "mlp.gate.weight",
                  "mlp.gate.e_score_correction_bias", "mlp.shared_experts.gate_proj.weight",
                  "mlp.shared_experts.up_proj.weight", "mlp.shared_experts.down_proj.weight",
                  "input_layernorm.weight", "post_attention_layernorm.weight"));
  EXPECT_EQ(module_named(map, "model.layers.0.mlp.up_proj.weight").shape, (Shape{96, 64}));
  EXPECT_EQ(module_named(map, "model.layers.1.mlp.switch_mlp.up_proj.weight").shape,
            (Shape{2, 32, 64}));
  EXPECT_FALSE(module_named(map, "model.layers.1.mlp.gate.weight").quantizable);
  EXPECT_TRUE(module_named(map, "model.layers.1.mlp.gate.e_score_correction_bias").keep_dtype);
  EXPECT_TRUE(map.config_additions.empty()) << map.config_additions;
}

TEST(DeepseekV3, HeadsOfKvBAreSplit) {
  const ModelMap map = mapped(tiny());
  const OutputModule& keys = module_named(map, "model.layers.0.self_attn.embed_q.weight");
  EXPECT_EQ(keys.shape, (Shape{kHeads, kRank, kNope}));
  std::vector<RowRun> runs;
  append_row_runs(keys.recipe, kRank + 3, 5, runs);
  const uint32_t tensor = keys.recipe.sources[0].tensor;
  EXPECT_THAT(runs, ElementsAre(RowRun{tensor, kNope + kV, 5, true, 3}));
  const OutputModule& values = module_named(map, "model.layers.0.self_attn.unembed_out.weight");
  EXPECT_EQ(values.shape, (Shape{kHeads, kV, kRank}));
  runs.clear();
  append_row_runs(values.recipe, kV - 2, 4, runs);
  EXPECT_THAT(runs,
              ElementsAre(RowRun{tensor, kNope + kV - 2, 2}, RowRun{tensor, 2 * kNope + kV, 2}));
}

TEST(DeepseekV3, ConvertedNamesAreTaken) {
  FakeCheckpoint fake = tiny("kimi_k2");
  for (int l = 0; l < 2; ++l) {
    const std::string a = fmt::format("model.layers.{}.self_attn.", l);
    fake.remove(a + "kv_b_proj.weight");
    fake.add(a + "embed_q.weight", {kHeads, kRank, kNope});
    fake.add(a + "unembed_out.weight", {kHeads, kV, kRank});
  }
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    const bool down = std::string(part) == "down_proj";
    for (int e = 0; e < 2; ++e)
      fake.remove(fmt::format("model.layers.1.mlp.experts.{}.{}.weight", e, part));
    fake.add(fmt::format("model.layers.1.mlp.switch_mlp.{}.weight", part),
             down ? Shape{2, 64, 32} : Shape{2, 32, 64});
  }
  const ModelMap map = mapped(fake);
  EXPECT_EQ(map.family, "kimi_k2");
  EXPECT_EQ(map.modules.size(), mapped(tiny()).modules.size());
  EXPECT_EQ(module_named(map, "model.layers.0.self_attn.embed_q.weight").recipe.sources[0].order,
            RowOrder::kInOrder);
}

TEST(DeepseekV3, LayersBeyondTheLastAreDropped) {
  FakeCheckpoint fake = tiny();
  fake.add("model.layers.2.eh_proj.weight", {64, 128}).add("model.layers.61.enorm.weight", {64});
  fake.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, DType::kF32);
  EXPECT_EQ(mapped(fake).dropped.size(), 3);
  fake.add("model.layers.x.enorm.weight", {64});
  EXPECT_THAT(refused(fake), HasSubstr("1 tensor does not belong: model.layers.x.enorm.weight"));
}

TEST(DeepseekV3, OtherShapesOfAttentionAndExperts) {
  FakeCheckpoint full = tiny();
  full.set("q_lora_rank", nullptr).set("n_shared_experts", nullptr).set("attention_bias", true);
  for (int l = 0; l < 2; ++l) {
    const std::string a = fmt::format("model.layers.{}.self_attn.", l);
    full.remove(a + "q_a_proj.weight").remove(a + "q_a_layernorm.weight");
    full.remove(a + "q_b_proj.weight");
    full.add(a + "q_proj.weight", {kHeads * (kNope + kRope), 64});
    full.add(a + "kv_a_proj_with_mqa.bias", {kRank + kRope}).add(a + "o_proj.bias", {64});
  }
  for (const char* part : {"gate_proj", "up_proj", "down_proj"})
    full.remove(fmt::format("model.layers.1.mlp.shared_experts.{}.weight", part));
  EXPECT_EQ(module_named(mapped(full), "model.layers.1.self_attn.q_proj.weight").shape,
            (Shape{kHeads * (kNope + kRope), 64}));
}

TEST(DeepseekV3, WhatStockMlxCannotLoadIsRefused) {
  FakeCheckpoint tied = tiny();
  tied.set("tie_word_embeddings", true);
  EXPECT_THAT(refused(tied), HasSubstr("head of their own"));
  FakeCheckpoint missing = tiny();
  missing.remove("model.layers.1.self_attn.kv_b_proj.weight");
  EXPECT_THAT(refused(missing), HasSubstr("model.layers.1.self_attn.kv_b_proj.weight [40, 16]"));
  FakeCheckpoint unsaid = tiny();
  unsaid.unset("kv_lora_rank");
  EXPECT_THAT(refused(unsaid), HasSubstr("kv_lora_rank"));
}

TEST(DeepseekV2, KvBStaysWholeAndNothingIsCorrected) {
  FakeCheckpoint fake = tiny("deepseek_v2");
  fake.remove("model.layers.1.mlp.gate.e_score_correction_bias");
  const ModelMap map = mapped(fake);
  EXPECT_EQ(module_named(map, "model.layers.1.self_attn.kv_b_proj.weight").shape,
            (Shape{kHeads * (kNope + kV), kRank}));
  EXPECT_EQ(map.modules.size(), mapped(tiny()).modules.size() - 3);
  EXPECT_THAT(refused(tiny("deepseek_v2")), HasSubstr("e_score_correction_bias"));
}

FakeCheckpoint indexed(const std::string& model_type) {
  FakeCheckpoint fake = tiny(model_type);
  fake.set("index_n_heads", 3).set("index_head_dim", 16);
  for (int l = 0; l < 2; ++l) {
    const std::string i = fmt::format("model.layers.{}.self_attn.indexer.", l);
    fake.add(i + "wq_b.weight", {3 * 16, kQRank}).add(i + "wk.weight", {16, 64});
    fake.add(i + "k_norm.weight", {16}).add(i + "k_norm.bias", {16});
    fake.add(i + "weights_proj.weight", {3, 64});
  }
  return fake;
}

TEST(DeepseekV32, IndexersAreKept) {
  for (const char* type : {"deepseek_v32", "glm_moe_dsa"}) {
    const ModelMap map = mapped(indexed(type));
    EXPECT_EQ(map.modules.size(), mapped(tiny()).modules.size() + 10);
    EXPECT_TRUE(
        module_named(map, "model.layers.0.self_attn.indexer.weights_proj.weight").quantizable);
    EXPECT_FALSE(module_named(map, "model.layers.0.self_attn.indexer.k_norm.bias").quantizable);
    EXPECT_THAT(refused(tiny(type)), HasSubstr("index_n_heads"));
  }
  FakeCheckpoint shared = indexed("glm_moe_dsa");
  shared.set("indexer_types", {"full", "shared"});
  EXPECT_THAT(refused(shared), HasSubstr("share an indexer"));
  shared.set("indexer_types", {"full", "full"});
  EXPECT_EQ(mapped(shared).layers, 2);
}

TEST(Glm4MoeLite, KindsOfLayersByTheirList) {
  FakeCheckpoint fake = tiny("glm4_moe_lite");
  fake.set("mlp_layer_types", {"dense", "sparse"});
  EXPECT_TRUE(mapped(fake).config_additions.empty());
  fake.unset("first_k_dense_replace");
  EXPECT_EQ(mapped(fake).config_additions, (Json{{"first_k_dense_replace", 1}}));
  for (const Json& wrong :
       {Json::array({"sparse", "dense"}), Json::array({"dense"}), Json::array({"dense", "moe"})}) {
    fake.set("mlp_layer_types", wrong);
    EXPECT_THAT(refused(fake), HasSubstr("mlp_layer_types should be 2 layers")) << wrong;
  }
  fake.set("mlp_layer_types", {1, 2});
  EXPECT_THAT(refused(fake), HasSubstr("mlp_layer_types"));
}

TEST(KimiK25, TheLanguageModelUnderItsPrefix) {
  FakeCheckpoint fake = tiny("kimi_k2").nest("kimi_k25", "language_model.");
  fake.add("vision_tower.encoder.blocks.0.wqkv.weight", {12, 4});
  fake.add("mm_projector.proj.0.bias", {64});
  fake.add("language_model.model.layers.2.enorm.weight", {64});
  const ModelMap map = mapped(fake);
  EXPECT_EQ(map.family, "kimi_k25");
  EXPECT_EQ(map.prefix, "language_model.");
  EXPECT_EQ(map.dropped.size(), 3u);
  EXPECT_EQ(map.modules.size(), mapped(tiny()).modules.size());
  EXPECT_EQ(module_named(map, "language_model.model.layers.1.self_attn.embed_q.weight").shape,
            (Shape{kHeads, kRank, kNope}));
  module_named(map, "language_model.lm_head.weight");
  ASSERT_EQ(map.notes.size(), 1u);
  EXPECT_THAT(map.notes[0], HasSubstr("the vision part is left out: 2 tensors"));
  fake.add("audio_tower.weight", {4});
  EXPECT_THAT(refused(fake), HasSubstr("audio_tower.weight"));
}

TEST(OnlyLayers, KeepTheirModules) {
  const ModelMap map = mapped(tiny(), "1");
  EXPECT_EQ(map.only_layers, "1-1");
  EXPECT_EQ(map.layers, 2);
  EXPECT_EQ(map.modules.size(), 18);
  for (const OutputModule& module : map.modules) EXPECT_EQ(module.layer, 1);
  EXPECT_EQ(mapped(tiny(), "0-1").modules.size(), mapped(tiny()).modules.size() - 3);
  EXPECT_EQ(mapped(tiny()).only_layers, "");
  for (const char* wrong : {"2", "0-2", "1-0", "-1", "1-", "a", "0-1-2", "0, 1", "-"})
    EXPECT_THAT(refused(tiny(), wrong), HasSubstr("no range of this model's 2 layers")) << wrong;
}

}  // namespace
}  // namespace sluice::families
