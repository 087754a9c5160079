// Gemma 3 and 4 and Llama 4: the language model of a model that sees, in the layouts of
// transformers 4 and 5, with what configurations leave out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "families/fake_checkpoint.h"
#include "families/recipe.h"

namespace sluice::families {
namespace {

using numerics::Shape;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

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

std::vector<std::string> names_of_layer(const ModelMap& map, int layer) {
  std::vector<std::string> names;
  for (const OutputModule& module : map.modules)
    if (module.layer == layer) names.push_back(module.tensor_name());
  return names;
}

// Heads, head_dim and vocabulary are left to transformers.
FakeCheckpoint gemma3(std::string_view root, std::string_view vision) {
  FakeCheckpoint fake({{"model_type", "gemma3"},
                       {"text_config",
                        {{"model_type", "gemma3_text"},
                         {"hidden_size", 64},
                         {"intermediate_size", 96},
                         {"num_hidden_layers", 1}}}});
  const std::string model(root), layer = model + "layers.0.", a = layer + "self_attn.";
  fake.add(model + "embed_tokens.weight", {262208, 64}).add(model + "norm.weight", {64});
  fake.add(a + "q_proj.weight", {2048, 64}).add(a + "k_proj.weight", {1024, 64});
  fake.add(a + "v_proj.weight", {1024, 64}).add(a + "o_proj.weight", {64, 2048});
  fake.add(a + "q_norm.weight", {256}).add(a + "k_norm.weight", {256});
  fake.add(layer + "mlp.gate_proj.weight", {96, 64}).add(layer + "mlp.up_proj.weight", {96, 64});
  fake.add(layer + "mlp.down_proj.weight", {64, 96});
  for (const char* norm : {"input", "post_attention", "pre_feedforward", "post_feedforward"})
    fake.add(fmt::format("{}{}_layernorm.weight", layer, norm), {64});
  fake.add(std::string(vision) + "vision_tower.embeddings.weight", {8, 3, 4, 4});
  fake.add(std::string(vision) + "multi_modal_projector.norm.weight", {8});
  return fake;
}

TEST(Gemma3, ThePartThatReadsInBothLayouts) {
  for (const FakeCheckpoint& fake :
       {gemma3("language_model.model.", ""), gemma3("model.language_model.", "model.")}) {
    const ModelMap map = mapped(fake);
    EXPECT_EQ(map.prefix, "language_model.");
    EXPECT_TRUE(map.tied) << "by absence";
    EXPECT_EQ(map.dropped.size(), 2u);
    EXPECT_THAT(map.notes, Contains(HasSubstr("the vision part is left out: 2 tensors")));
    EXPECT_EQ(module_named(map, "language_model.model.embed_tokens.weight").shape,
              (Shape{262208, 64}));
    EXPECT_THAT(names_of_layer(map, 0),
                ElementsAre("language_model.model.layers.0.self_attn.q_proj.weight",
                            "language_model.model.layers.0.self_attn.k_proj.weight",
                            "language_model.model.layers.0.self_attn.v_proj.weight",
                            "language_model.model.layers.0.self_attn.o_proj.weight",
                            "language_model.model.layers.0.self_attn.q_norm.weight",
                            "language_model.model.layers.0.self_attn.k_norm.weight",
                            "language_model.model.layers.0.mlp.gate_proj.weight",
                            "language_model.model.layers.0.mlp.down_proj.weight",
                            "language_model.model.layers.0.mlp.up_proj.weight",
                            "language_model.model.layers.0.input_layernorm.weight",
                            "language_model.model.layers.0.post_attention_layernorm.weight",
                            "language_model.model.layers.0.pre_feedforward_layernorm.weight",
                            "language_model.model.layers.0.post_feedforward_layernorm.weight"));
    const Json& text = map.config_additions["text_config"];
    EXPECT_EQ(text["num_attention_heads"], 8);
    EXPECT_EQ(text["head_dim"], 256);
    EXPECT_EQ(text["hidden_size"], 64);
    EXPECT_EQ(map.config_additions["vocab_size"], 262208);
  }
}

TEST(Gemma3, AHeadOfItsOwn) {
  FakeCheckpoint fake = gemma3("language_model.model.", "");
  fake.add("language_model.lm_head.weight", {262208, 64});
  const ModelMap map = mapped(fake);
  EXPECT_FALSE(map.tied);
  EXPECT_TRUE(module_named(map, "language_model.lm_head.weight").quantizable);
}

TEST(Gemma3, WhatDoesNotBelongIsNamed) {
  FakeCheckpoint fake = gemma3("language_model.model.", "");
  fake.add("audio_tower.weight", {3, 3});
  EXPECT_THAT(refused(fake), HasSubstr("audio_tower.weight"));
}

constexpr uint64_t kExperts = 3, kWidth = 32, kHidden = 64;

// Layer 0 dense, layer 1 with experts.
FakeCheckpoint llama4() {
  FakeCheckpoint fake({{"model_type", "llama4"},
                       {"text_config",
                        {{"model_type", "llama4_text"},
                         {"hidden_size", kHidden},
                         {"intermediate_size", kWidth},
                         {"intermediate_size_mlp", 96},
                         {"interleave_moe_layer_step", 2},
                         {"num_hidden_layers", 2},
                         {"num_attention_heads", 4},
                         {"num_key_value_heads", 2},
                         {"head_dim", 16},
                         {"num_local_experts", kExperts},
                         {"num_experts_per_tok", 1},
                         {"vocab_size", 128}}}});
  const std::string model = "language_model.model.";
  fake.add(model + "embed_tokens.weight", {128, kHidden}).add(model + "norm.weight", {kHidden});
  fake.add("language_model.lm_head.weight", {128, kHidden});
  fake.add("vision_model.class_embedding", {8});
  fake.add("multi_modal_projector.linear_1.weight", {kHidden, 8});
  const auto mlp = [&](const std::string& path, uint64_t width) {
    fake.add(path + "gate_proj.weight", {width, kHidden});
    fake.add(path + "up_proj.weight", {width, kHidden});
    fake.add(path + "down_proj.weight", {kHidden, width});
  };
  for (int l = 0; l < 2; ++l) {
    const std::string layer = fmt::format("{}layers.{}.", model, l), a = layer + "self_attn.";
    fake.add(a + "q_proj.weight", {64, kHidden}).add(a + "k_proj.weight", {32, kHidden});
    fake.add(a + "v_proj.weight", {32, kHidden}).add(a + "o_proj.weight", {kHidden, 64});
    fake.add(layer + "input_layernorm.weight", {kHidden});
    fake.add(layer + "post_attention_layernorm.weight", {kHidden});
  }
  mlp(model + "layers.0.feed_forward.", 96);
  const std::string sparse = model + "layers.1.feed_forward.";
  mlp(sparse + "shared_expert.", kWidth);
  fake.add(sparse + "router.weight", {kExperts, kHidden});
  fake.add(sparse + "experts.gate_up_proj", {kExperts, kHidden, 2 * kWidth});
  fake.add(sparse + "experts.down_proj", {kExperts, kWidth, kHidden});
  return fake;
}

TEST(Llama4, FusedExpertsAreTurned) {
  const ModelMap map = mapped(llama4());
  const std::string experts = "language_model.model.layers.1.feed_forward.experts.";
  const auto runs_of = [&](const char* name, uint64_t first, uint64_t rows) {
    const OutputModule& module = module_named(map, experts + name);
    std::vector<RowRun> runs;
    append_row_runs(module.recipe, first, rows, runs);
    for (RowRun& run : runs) run.tensor = 0;
    return runs;
  };
  EXPECT_EQ(module_named(map, experts + "up_proj.weight").shape,
            (Shape{kExperts, kWidth, kHidden}));
  EXPECT_THAT(runs_of("gate_proj.weight", kWidth + 3, 4),
              ElementsAre(RowRun{0, kHidden, 4, true, 3, 1}));
  EXPECT_THAT(runs_of("up_proj.weight", kWidth + 3, 4),
              ElementsAre(RowRun{0, kHidden, 4, true, kWidth + 3, 1}));
  EXPECT_THAT(runs_of("down_proj.weight", kHidden - 1, 2),
              ElementsAre(RowRun{0, 0, 1, true, kHidden - 1, 1}, RowRun{0, kWidth, 1, true, 0, 1}));
  EXPECT_THAT(map.dropped, UnorderedElementsAre("vision_model.class_embedding",
                                                "multi_modal_projector.linear_1.weight"));
}

TEST(Llama4, DenseLayersHaveTheirOwnWidth) {
  const ModelMap map = mapped(llama4());
  EXPECT_EQ(module_named(map, "language_model.model.layers.0.feed_forward.up_proj.weight").shape,
            (Shape{96, kHidden}));
  EXPECT_EQ(
      module_named(map, "language_model.model.layers.1.feed_forward.shared_expert.up_proj.weight")
          .shape,
      (Shape{kWidth, kHidden}));
}

TEST(Llama4, ListsThatMlxWouldNotFollow) {
  FakeCheckpoint fake = llama4();
  Json text = fake.build()->config["text_config"];
  text["moe_layers"] = {1};
  fake.set("text_config", text);
  mapped(fake);
  text["moe_layers"] = {0};
  fake.set("text_config", text);
  EXPECT_THAT(refused(fake), HasSubstr("moe_layers differs from interleave_moe_layer_step 2"));
}

// Layers 1 and 3 see everything; layers 2 and 3 borrow keys and values and are twice as wide.
FakeCheckpoint gemma4() {
  FakeCheckpoint fake({{"model_type", "gemma4"},
                       {"text_config",
                        {{"model_type", "gemma4_text"},
                         {"hidden_size", kHidden},
                         {"intermediate_size", 96},
                         {"num_hidden_layers", 4},
                         {"num_attention_heads", 4},
                         {"num_key_value_heads", 2},
                         {"head_dim", 16},
                         {"global_head_dim", 32},
                         {"attention_k_eq_v", true},
                         {"num_global_key_value_heads", 1},
                         {"num_kv_shared_layers", 2},
                         {"use_double_wide_mlp", true},
                         {"hidden_size_per_layer_input", 8},
                         {"sliding_window_pattern", 2},
                         {"tie_word_embeddings", true},
                         {"vocab_size", 128}}}});
  const std::string model = "model.language_model.";
  fake.add(model + "embed_tokens.weight", {128, kHidden}).add(model + "norm.weight", {kHidden});
  fake.add(model + "embed_tokens_per_layer.weight", {128, 32});
  fake.add(model + "per_layer_model_projection.weight", {32, kHidden});
  fake.add(model + "per_layer_projection_norm.weight", {8});
  fake.add("model.audio_tower.weight", {8, 8}).add("model.embed_vision.weight", {8, 8});
  for (int l = 0; l < 4; ++l) {
    const std::string layer = fmt::format("{}layers.{}.", model, l), a = layer + "self_attn.";
    const uint64_t d = l % 2 == 1 ? 32 : 16, kv = 32;  // of one head, or of two
    const uint64_t width = l >= 2 ? 192 : 96;
    fake.add(a + "q_proj.weight", {4 * d, kHidden}).add(a + "o_proj.weight", {kHidden, 4 * d});
    fake.add(a + "k_proj.weight", {kv, kHidden}).add(a + "q_norm.weight", {d});
    fake.add(a + "k_norm.weight", {d});
    if (l % 2 == 0) fake.add(a + "v_proj.weight", {kv, kHidden});
    fake.add(layer + "mlp.gate_proj.weight", {width, kHidden});
    fake.add(layer + "mlp.up_proj.weight", {width, kHidden});
    fake.add(layer + "mlp.down_proj.weight", {kHidden, width});
    for (const char* norm :
         {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
          "post_feedforward_layernorm", "post_per_layer_input_norm"})
      fake.add(fmt::format("{}{}.weight", layer, norm), {kHidden});
    fake.add(layer + "per_layer_input_gate.weight", {8, kHidden});
    fake.add(layer + "per_layer_projection.weight", {kHidden, 8});
    fake.add(layer + "layer_scalar", {1});
  }
  return fake;
}

TEST(Gemma4, LayersDiffer) {
  const ModelMap map = mapped(gemma4());
  const auto names = [&](int layer) {
    std::vector<std::string> ends;
    for (const std::string& name : names_of_layer(map, layer))
      if (const size_t at = name.find("self_attn."); at != std::string::npos)
        ends.push_back(name.substr(at + 10));
    return ends;
  };
  EXPECT_THAT(names(0), ElementsAre("q_proj.weight", "k_proj.weight", "v_proj.weight",
                                    "o_proj.weight", "q_norm.weight", "k_norm.weight"));
  EXPECT_THAT(names(1), ElementsAre("q_proj.weight", "k_proj.weight", "o_proj.weight",
                                    "q_norm.weight", "k_norm.weight"));
  EXPECT_THAT(names(2), ElementsAre("q_proj.weight", "o_proj.weight", "q_norm.weight"));
  EXPECT_THAT(names(3), ElementsAre("q_proj.weight", "o_proj.weight", "q_norm.weight"));
  const std::string layers = "language_model.model.layers.";
  EXPECT_EQ(module_named(map, layers + "1.self_attn.q_proj.weight").shape, (Shape{128, kHidden}));
  EXPECT_EQ(module_named(map, layers + "1.mlp.up_proj.weight").shape, (Shape{96, kHidden}));
  EXPECT_EQ(module_named(map, layers + "2.mlp.up_proj.weight").shape, (Shape{192, kHidden}));
  EXPECT_EQ(module_named(map, layers + "2.layer_scalar").shape, (Shape{1}));
  // k of two layers, their norms, v of one, and the two other parts.
  EXPECT_EQ(map.dropped.size(), 7u);
  EXPECT_THAT(map.notes, Contains(HasSubstr("the audio part is left out")));
}

TEST(Gemma4, KindsOfLayersThatAreNotKnown) {
  FakeCheckpoint fake = gemma4();
  Json text = fake.build()->config["text_config"];
  text["layer_types"] = {"full_attention", "linear_attention", "full_attention", "full_attention"};
  fake.set("text_config", text);
  EXPECT_THAT(refused(fake), HasSubstr("layer_types says \"linear_attention\" for layer 1"));
}

}  // namespace
}  // namespace sluice::families
