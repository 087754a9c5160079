// Models known by their configuration alone: the tensors that follow from it, with and without an
// index; sizes of families without a table; what a token leaves in caches.
#include "families/outline.h"

#include <gmock/gmock.h>

#include "families/complete_checkpoint.h"
#include "families/kv_shape.h"

namespace sluice::families {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

io::ModelOutline outline_of(const Json& config) {
  io::ModelOutline outline;
  outline.path = "somewhere";
  outline.config = config;
  return outline;
}

uint64_t elements(const ModelMap& map) {
  uint64_t sum = 0;
  for (const OutputModule& module : map.modules) sum += module.elements();
  return sum;
}

ModelMap mapped(const io::ModelOutline& outline) {
  const auto checkpoint = outlined_checkpoint(outline);
  EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  if (!checkpoint) return {};
  const auto map = map_model(**checkpoint, "");
  EXPECT_TRUE(map.has_value()) << map.error().message;
  return map ? *map : ModelMap{};
}

TEST(Outline, AConfigurationSaysWhatTheTensorsAre) {
  for (const char* family : {"llama", "qwen2", "qwen3", "qwen3_moe", "mixtral"}) {
    const FakeCheckpoint fake = tiny_hf(family);
    const auto map = map_model(*fake.build(), "");
    ASSERT_TRUE(map.has_value());
    const ModelMap outlined = mapped(outline_of(tiny_config(family)));
    ASSERT_EQ(outlined.modules.size(), map->modules.size()) << family;
    for (size_t i = 0; i < map->modules.size(); ++i) {
      EXPECT_EQ(outlined.modules[i].tensor_name(), map->modules[i].tensor_name());
      EXPECT_EQ(outlined.modules[i].shape, map->modules[i].shape);
    }
  }
}

TEST(Outline, IndexNamesChooseTheLayout) {
  io::ModelOutline outline = outline_of(tiny_config("qwen3_moe", 1));
  const auto whole = tiny_hf("qwen3_moe", 1).build();
  for (const io::StoredTensor& tensor : whole->tensors)
    if (tensor.info.name.find(".experts.") == std::string::npos)
      outline.tensor_names.push_back(tensor.info.name);
  outline.tensor_names.emplace_back("model.layers.0.mlp.experts.down_proj");
  outline.tensor_names.emplace_back("model.layers.0.mlp.experts.gate_up_proj");
  std::ranges::sort(outline.tensor_names);
  EXPECT_EQ(elements(mapped(outline)), elements(mapped(outline_of(tiny_config("qwen3_moe", 1)))));
}

TEST(Outline, PartsOfPackedWeightsAreNoTensors) {
  io::ModelOutline outline = outline_of(tiny_config("llama", 1));
  outline.config["quantization_config"] = {{"quant_method", "awq"}};
  const auto whole = tiny_hf("llama", 1).build();
  for (const io::StoredTensor& tensor : whole->tensors) {
    std::string name = tensor.info.name;
    if (name.ends_with("q_proj.weight")) {
      const std::string path = name.substr(0, name.size() - 7);
      for (const char* part : {".qweight", ".qzeros", ".scales", ".g_idx"})
        outline.tensor_names.push_back(path + part);
      continue;
    }
    if (name.ends_with("up_proj.weight")) {
      outline.tensor_names.push_back(name + "_packed");
      outline.tensor_names.push_back(name + "_scale");
      outline.tensor_names.push_back(name + "_shape");
      continue;
    }
    if (name.ends_with("down_proj.weight")) outline.tensor_names.push_back(name + "_scale_inv");
    outline.tensor_names.push_back(std::move(name));
  }
  std::ranges::sort(outline.tensor_names);
  EXPECT_EQ(elements(mapped(outline)), elements(mapped(outline_of(tiny_config("llama", 1)))));
  outline.tensor_names.emplace_back("model.layers.0.mlp.stray.scales");
  std::ranges::sort(outline.tensor_names);
  const auto stray = outlined_checkpoint(outline);
  ASSERT_FALSE(stray.has_value());
  EXPECT_EQ(stray.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(stray.error().message, HasSubstr("stray.scales"));
}

TEST(Outline, WhatIsMissingInAnIndexIsNamed) {
  io::ModelOutline outline = outline_of(tiny_config("llama", 1));
  const auto whole = tiny_hf("llama", 1).build();
  for (const io::StoredTensor& tensor : whole->tensors)
    if (!tensor.info.name.ends_with("k_proj.weight"))
      outline.tensor_names.push_back(tensor.info.name);
  const auto checkpoint = outlined_checkpoint(outline);
  ASSERT_FALSE(checkpoint.has_value());
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("k_proj.weight"));
}

TEST(Outline, TiedAsTheFamilyHasItWhereTheConfigurationDoesNotSay) {
  Json config = tiny_config("llama");
  config.erase("tie_word_embeddings");
  EXPECT_FALSE(mapped(outline_of(config)).tied);
  config["model_type"] = "gemma3_text";
  config["head_dim"] = 16;
  EXPECT_TRUE(mapped(outline_of(config)).tied);
}

TEST(Outline, AnUnknownFamilyIsAnError) {
  const auto checkpoint = outlined_checkpoint(outline_of({{"model_type", "deepseek_v4"}}));
  ASSERT_FALSE(checkpoint.has_value());
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(outlined_checkpoint(outline_of({{"model_type", 3}})).has_value());
  EXPECT_FALSE(outlined_checkpoint(outline_of({{"model_type", "llama"}})).has_value());
}

TEST(Outline, ActiveWeightsLeaveOutTheOtherExperts) {
  Json config = tiny_config("qwen3_moe");
  config["num_experts_per_tok"] = 1;
  const ModelMap map = mapped(outline_of(config));
  const uint64_t expert = 3 * 64 * 32;
  EXPECT_EQ(experts_per_token(config), 1u);
  EXPECT_EQ(active_elements(map, 1), elements(map) - 2 * 2 * expert);
  EXPECT_EQ(active_elements(map, 0), elements(map));
  EXPECT_EQ(experts_per_token({{"text_config", {{"top_k_experts", 8}}}}), 8u);
}

// The estimate knows no table, so that tables can be its measure.
TEST(Estimate, IsNearTheTables) {
  Json config = {{"model_type", "deepseek_v3"},
                 {"hidden_size", 1024},
                 {"intermediate_size", 4096},
                 {"num_hidden_layers", 12},
                 {"num_attention_heads", 16},
                 {"vocab_size", 32000},
                 {"q_lora_rank", 384},
                 {"kv_lora_rank", 128},
                 {"qk_nope_head_dim", 64},
                 {"qk_rope_head_dim", 32},
                 {"v_head_dim", 64},
                 {"n_routed_experts", 32},
                 {"n_shared_experts", 1},
                 {"num_experts_per_tok", 4},
                 {"moe_intermediate_size", 512},
                 {"first_k_dense_replace", 2},
                 {"tie_word_embeddings", false},
                 {"torch_dtype", "bfloat16"}};
  const auto check = [&](const char* family) {
    config["model_type"] = family;
    const ModelMap map = mapped(outline_of(config));
    const auto estimate = estimate_size(config);
    ASSERT_TRUE(estimate.has_value());
    EXPECT_NEAR(static_cast<double>(estimate->parameters) / static_cast<double>(elements(map)), 1,
                0.01)
        << family;
    EXPECT_NEAR(static_cast<double>(estimate->active_parameters) /
                    static_cast<double>(active_elements(map, experts_per_token(config))),
                1, 0.01)
        << family;
  };
  check("deepseek_v3");
  config.erase("kv_lora_rank");
  config.erase("q_lora_rank");
  config["head_dim"] = 64;
  config["num_key_value_heads"] = 4;
  check("glm4_moe");
  config.erase("n_routed_experts");
  check("llama");
  config["tie_word_embeddings"] = true;
  check("qwen3");
}

TEST(Estimate, NothingWithoutWidths) {
  EXPECT_FALSE(estimate_size(Json::object()).has_value());
  EXPECT_FALSE(estimate_size({{"hidden_size", "wide"}, {"num_hidden_layers", 3}}).has_value());
  const Json absurd = {{"hidden_size", 1e18},
                       {"num_hidden_layers", 1e18},
                       {"vocab_size", -5},
                       {"num_attention_heads", 3}};
  EXPECT_FALSE(estimate_size(absurd).has_value());
}

std::vector<KvShape> shapes_of(const Json& config) {
  io::Checkpoint checkpoint;
  checkpoint.path = "somewhere";
  checkpoint.config = config;
  ModelMap map;
  map.family = config.at("model_type").get<std::string>();
  map.layers = config.value("num_hidden_layers", 0);
  return kv_shapes(checkpoint, map);
}

TEST(KvShapes, WindowsAreToldApart) {
  Json config = tiny_config("gemma3_text", 6);
  config["sliding_window"] = 512;
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{5, 2, 16, 512}, KvShape{1, 2, 16, 0}));
  config["sliding_window_pattern"] = 3;
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{4, 2, 16, 512}, KvShape{2, 2, 16, 0}));
  config = tiny_config("llama", 2);
  config["sliding_window"] = 512;
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{2, 2, 16, 0}));
  config["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{1, 2, 16, 0}, KvShape{1, 2, 16, 512}));
}

TEST(KvShapes, LatentsAndLayersThatKeepNothing) {
  Json config = {{"model_type", "unheard_of"},
                 {"num_hidden_layers", 8},
                 {"kv_lora_rank", 512},
                 {"qk_rope_head_dim", 64}};
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{8, 1, 288, 0}));
  config["linear_attn_config"] = {{"full_attn_layers", {4, 8}}};
  EXPECT_THAT(shapes_of(config), ElementsAre(KvShape{2, 1, 288, 0}));
  const Json searched = {{"model_type", "nemotron-nas"},
                         {"num_hidden_layers", 2},
                         {"num_attention_heads", 8},
                         {"hidden_size", 64},
                         {"block_configs",
                          {{{"attention", {{"n_heads_in_group", 4}}}},
                           {{"attention", {{"n_heads_in_group", nullptr}}}}}}};
  EXPECT_THAT(shapes_of(searched), ElementsAre(KvShape{1, 2, 8, 0}));
  Json nested = tiny_config("qwen3_5", 4);
  nested.update({{"head_dim", 32},
                 {"linear_num_key_heads", 2},
                 {"linear_num_value_heads", 2},
                 {"linear_key_head_dim", 16},
                 {"linear_value_head_dim", 16},
                 {"linear_conv_kernel_dim", 4}});
  EXPECT_THAT(shapes_of({{"model_type", "qwen3_5"}, {"text_config", nested}}),
              ElementsAre(KvShape{1, 2, 32, 0}));
}

}  // namespace
}  // namespace sluice::families
