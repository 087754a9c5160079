// The hybrids of linear and gated attention: which modules there are, how an unconverted checkpoint
// is told from a converted one, and what belongs to other parts of the model.
#include <gmock/gmock.h>

#include "families/fake_checkpoint.h"
#include "families/family.h"

namespace sluice::families {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

// hidden 64, two key heads of 8, four value heads of 16: KD 16, VD 64; layer 1 attends.
Json hybrid_config(const std::string& family) {
  Json text = {
      {"hidden_size", 64},           {"intermediate_size", 96},      {"num_hidden_layers", 2},
      {"num_attention_heads", 4},    {"num_key_value_heads", 2},     {"head_dim", 32},
      {"vocab_size", 128},           {"full_attention_interval", 2}, {"linear_num_key_heads", 2},
      {"linear_num_value_heads", 4}, {"linear_key_head_dim", 8},     {"linear_value_head_dim", 16},
      {"linear_conv_kernel_dim", 4}};
  if (family != "qwen3_5")
    text.update({{"num_experts", 3},
                 {"moe_intermediate_size", 32},
                 {"shared_expert_intermediate_size", 48},
                 {"decoder_sparse_step", 1},
                 {"mlp_only_layers", Json::array()}});
  Json config = {{"model_type", family}, {"tie_word_embeddings", false}};
  if (family == "qwen3_next") {
    config.update(text);
    config["torch_dtype"] = "bfloat16";
  } else {
    text["dtype"] = "bfloat16";
    config["text_config"] = text;
  }
  return config;
}

// Every tensor in its first layout, and convolutions as transformers has them.
FakeCheckpoint hybrid(const std::string& family, const std::string& root = "model.") {
  const Json config = hybrid_config(family);
  const Family& rules = *find_family(family);
  FakeCheckpoint fake(config);
  const auto missing = outlined_tensors(*fake.build(), rules);
  if (!missing) return fake;
  for (const io::TensorInfo& info : *missing) {
    numerics::Shape shape = info.shape;
    if (info.name.ends_with("conv1d.weight")) std::swap(shape[1], shape[2]);
    std::string name = info.name;
    if (name.starts_with("model.")) name = root + name.substr(6);
    fake.add(name, shape);
  }
  return fake;
}

ModelMap mapped(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_TRUE(map.has_value()) << map.error().message;
  return map ? *map : ModelMap{};
}

std::string refusal(const FakeCheckpoint& fake) {
  const auto map = map_model(*fake.build(), "");
  EXPECT_FALSE(map.has_value());
  return map ? "" : map.error().message;
}

const OutputModule& module_of(const ModelMap& map, const std::string& tensor) {
  for (const OutputModule& module : map.modules)
    if (module.tensor_name() == tensor) return module;
  ADD_FAILURE() << "no " << tensor;
  static const OutputModule kNone;
  return kNone;
}

std::vector<std::string> shifted(const ModelMap& map) {
  std::vector<std::string> names;
  for (const OutputModule& module : map.modules)
    if (module.recipe.step == numerics::ValueStep::kAddOne) names.push_back(module.path);
  return names;
}

constexpr const char* kFamilies[] = {"qwen3_next", "qwen3_5", "qwen3_5_moe"};

TEST(Hybrids, NormsAreShiftedAndFiltersTurned) {
  for (const std::string family : kFamilies) {
    SCOPED_TRACE(family);
    const ModelMap map = mapped(hybrid(family));
    const std::string root = map.prefix + "model.";
    EXPECT_EQ(map.prefix, family == "qwen3_next" ? "" : "language_model.");
    EXPECT_THAT(
        shifted(map),
        UnorderedElementsAre(
            root + "layers.0.input_layernorm", root + "layers.0.post_attention_layernorm",
            root + "layers.1.input_layernorm", root + "layers.1.post_attention_layernorm",
            root + "layers.1.self_attn.q_norm", root + "layers.1.self_attn.k_norm", root + "norm"));
    const OutputModule& filters = module_of(map, root + "layers.0.linear_attn.conv1d.weight");
    EXPECT_EQ(filters.shape, (numerics::Shape{96, 4, 1}));
    EXPECT_EQ(filters.rows(), 96u);
    EXPECT_EQ(filters.columns(), 4u);
    EXPECT_EQ(filters.experts(), 1u);
    EXPECT_FALSE(filters.quantizable);
    EXPECT_EQ(module_of(map, root + "layers.0.linear_attn.A_log").keep_dtype,
              family != "qwen3_next");
  }
}

TEST(Hybrids, ShapesFollowTheConfiguration) {
  const ModelMap next = mapped(hybrid("qwen3_next"));
  EXPECT_EQ(module_of(next, "model.layers.0.linear_attn.in_proj_qkvz.weight").shape,
            (numerics::Shape{160, 64}));
  EXPECT_EQ(module_of(next, "model.layers.0.linear_attn.in_proj_ba.weight").shape,
            (numerics::Shape{8, 64}));
  EXPECT_EQ(module_of(next, "model.layers.1.self_attn.q_proj.weight").shape,
            (numerics::Shape{256, 64}));
  EXPECT_EQ(module_of(next, "model.layers.1.mlp.shared_expert_gate.weight").bits_floor, 8);
  const ModelMap moe = mapped(hybrid("qwen3_5_moe"));
  EXPECT_EQ(module_of(moe, "language_model.model.layers.0.mlp.switch_mlp.up_proj.weight").shape,
            (numerics::Shape{3, 32, 64}));
}

// A file that a loader has converted already must not be shifted again.
TEST(Hybrids, ConvertedOnesStay) {
  for (const std::string family : kFamilies) {
    SCOPED_TRACE(family);
    const ModelMap source = mapped(hybrid(family));
    FakeCheckpoint converted(hybrid_config(family));
    for (const OutputModule& module : source.modules)
      converted.add(module.tensor_name(), module.shape);
    const ModelMap map = mapped(converted);
    EXPECT_THAT(shifted(map), testing::IsEmpty());
    EXPECT_EQ(map.modules.size(), source.modules.size());
    EXPECT_TRUE(map.notes.empty());
  }
}

// Experts fused by transformers 5: mlx_lm does not load these, the convolution says what they are.
TEST(Hybrids, FusedAndSeparateExpertsOfEitherFamily) {
  FakeCheckpoint fused = hybrid("qwen3_next");
  const FakeCheckpoint separate = hybrid("qwen3_5_moe", "model.language_model.");
  for (int layer = 0; layer < 2; ++layer) {
    const std::string mlp = fmt::format("model.layers.{}.mlp.experts", layer);
    for (int expert = 0; expert < 3; ++expert)
      for (const char* name : {"gate_proj", "up_proj", "down_proj"})
        fused.remove(fmt::format("{}.{}.{}.weight", mlp, expert, name));
    fused.add(mlp + ".gate_up_proj", {3, 64, 64}).add(mlp + ".down_proj", {3, 64, 32});
  }
  EXPECT_EQ(shifted(mapped(fused)).size(), 7u);
  EXPECT_EQ(shifted(mapped(separate)).size(), 7u);
}

TEST(Hybrids, AnyPrefixOfTheLanguageModel) {
  const ModelMap expected = mapped(hybrid("qwen3_5"));
  for (const char* root : {"model.language_model.", "language_model.model."}) {
    const ModelMap map = mapped(hybrid("qwen3_5", root));
    ASSERT_EQ(map.modules.size(), expected.modules.size());
    for (size_t i = 0; i < map.modules.size(); ++i)
      EXPECT_EQ(map.modules[i].path, expected.modules[i].path);
  }
  FakeCheckpoint twice = hybrid("qwen3_5", "model.language_model.");
  twice.add("language_model.model.norm.weight", {64});
  EXPECT_THAT(refusal(twice), HasSubstr("are the same tensor of a qwen3_5 model"));
}

TEST(Hybrids, OtherPartsAreLeftOutWithANote) {
  FakeCheckpoint fake = hybrid("qwen3_5", "model.language_model.");
  fake.add("model.visual.blocks.0.attn.qkv.weight", {192, 64})
      .add("model.visual.merger.norm.weight", {64})
      .add("mtp.norm.weight", {64});
  const ModelMap map = mapped(fake);
  EXPECT_EQ(map.dropped.size(), 3u);
  EXPECT_THAT(map.notes, UnorderedElementsAre(HasSubstr("the vision part is left out: 2 tensors"),
                                              HasSubstr("multi-token prediction is left out: 1 ")));
  fake.add("model.language_model.layers.0.surprise.weight", {64});
  EXPECT_THAT(refusal(fake), HasSubstr("model.language_model.layers.0.surprise.weight"));
}

TEST(Hybrids, TiedFlagAtEitherLevel) {
  const auto without_head = [](const Json& top, const Json& inside) {
    FakeCheckpoint fake = hybrid("qwen3_5");
    fake.remove("lm_head.weight");
    Json text = hybrid_config("qwen3_5")["text_config"];
    if (!inside.is_null()) text["tie_word_embeddings"] = inside;
    fake.set("text_config", text).unset("tie_word_embeddings");
    if (!top.is_null()) fake.set("tie_word_embeddings", top);
    return fake;
  };
  // mlx_lm looks inside only, so that a flag outside has to be repeated there.
  const ModelMap outside = mapped(without_head(true, nullptr));
  EXPECT_TRUE(outside.tied);
  EXPECT_EQ(outside.config_additions["text_config"]["tie_word_embeddings"], true);
  EXPECT_EQ(outside.config_additions["text_config"]["hidden_size"], 64);
  const ModelMap inside = mapped(without_head(false, true));
  EXPECT_TRUE(inside.tied);
  EXPECT_TRUE(inside.config_additions.empty());
  EXPECT_TRUE(mapped(without_head(nullptr, nullptr)).tied);
  EXPECT_THAT(refusal(without_head(true, false)), HasSubstr("lm_head.weight"));
}

TEST(Hybrids, ConfigurationsThatCannotBe) {
  const auto with = [](const char* key, const Json& value) {
    FakeCheckpoint fake = hybrid("qwen3_5");
    Json text = hybrid_config("qwen3_5")["text_config"];
    text[key] = value;
    return refusal(fake.set("text_config", text));
  };
  EXPECT_THAT(with("linear_num_value_heads", 3), HasSubstr("is no multiple of"));
  EXPECT_THAT(with("linear_conv_kernel_dim", 0), HasSubstr("linear_conv_kernel_dim"));
  EXPECT_THAT(with("layer_types", Json::array({"linear_attention"})),
              HasSubstr("a list of 2 layers"));
  EXPECT_THAT(with("layer_types", Json::array({"linear_attention", "mamba"})),
              HasSubstr("\"mamba\" for layer 1"));
  EXPECT_THAT(with("layer_types", Json::array({"full_attention", "linear_attention"})),
              HasSubstr("full_attention_interval 2"));
  EXPECT_THAT(with("hidden_size", "wide"), HasSubstr("config.json, text_config"));
}

// Nemotron's layers, each one thing, in every spelling of the pattern.
TEST(Hybrids, LayersByAPattern) {
  Json config = {{"model_type", "nemotron_h"},
                 {"tie_word_embeddings", false},
                 {"torch_dtype", "bfloat16"},
                 {"hidden_size", 64},
                 {"intermediate_size", 96},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"vocab_size", 128},
                 {"mamba_num_heads", 4},
                 {"mamba_head_dim", 8},
                 {"n_groups", 2},
                 {"ssm_state_size", 16},
                 {"conv_kernel", 4},
                 {"use_conv_bias", true},
                 {"n_routed_experts", 3},
                 {"n_shared_experts", 1},
                 {"moe_intermediate_size", 32},
                 {"moe_shared_expert_intermediate_size", 48},
                 {"moe_latent_size", 40}};
  const std::pair<const char*, Json> spellings[] = {
      {"hybrid_override_pattern", "ME*-"},
      {"hybrid_override_pattern", {"M", "E", "*", "-"}},
      {"layers_block_type", {"mamba", "moe", "attention", "mlp"}},
      {"layer_types", {"linear_attention", "moe", "full_attention", "mlp"}}};
  for (const auto& [key, value] : spellings) {
    Json spelled = config;
    spelled[key] = value;
    FakeCheckpoint fake(spelled);
    const auto missing = outlined_tensors(*fake.build(), *find_family("nemotron_h"));
    ASSERT_TRUE(missing.has_value()) << missing.error().message;
    for (const io::TensorInfo& info : *missing) fake.add(info.name, info.shape);
    const ModelMap map = mapped(fake);
    EXPECT_EQ(map.layers, 4);
    EXPECT_EQ(module_of(map, "backbone.layers.0.mixer.in_proj.weight").shape,
              (numerics::Shape{32 + 96 + 4, 64}));
    EXPECT_EQ(module_of(map, "backbone.layers.0.mixer.conv1d.weight").shape,
              (numerics::Shape{96, 4, 1}));
    EXPECT_TRUE(module_of(map, "backbone.layers.0.mixer.A_log").keep_dtype);
    EXPECT_EQ(module_of(map, "backbone.layers.1.mixer.switch_mlp.fc1.weight").shape,
              (numerics::Shape{3, 32, 40}));
    EXPECT_EQ(module_of(map, "backbone.layers.1.mixer.fc2_latent_proj.weight").shape,
              (numerics::Shape{64, 40}));
    EXPECT_EQ(module_of(map, "backbone.layers.3.mixer.up_proj.weight").shape,
              (numerics::Shape{96, 64}));
  }
  config["hybrid_override_pattern"] = "MX";
  EXPECT_THAT(refusal(FakeCheckpoint(config)), HasSubstr("layer 1 is of the unknown kind \"X\""));
  config.erase("hybrid_override_pattern");
  EXPECT_THAT(refusal(FakeCheckpoint(config)), HasSubstr("should say what each"));
}

// Without the axis of an unconverted convolution, an unturned one is a mistake.
TEST(Hybrids, FiltersOfAConvertedModelMustBeTurned) {
  const ModelMap source = mapped(hybrid("qwen3_next"));
  FakeCheckpoint converted(hybrid_config("qwen3_next"));
  for (const OutputModule& module : source.modules)
    converted.add(module.tensor_name(), module.shape);
  converted.add("model.layers.0.linear_attn.conv1d.weight", {96, 3, 1});
  EXPECT_THAT(refusal(converted), HasSubstr("should have shape [96, 4, 1] and has [96, 3, 1]"));
}

}  // namespace
}  // namespace sluice::families
