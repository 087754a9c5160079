// Configurations in both spellings, rope scalings against published values, and what is refused.
#include "model/config.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "families/fake_checkpoint.h"

namespace sluice::model {
namespace {

using families::FakeCheckpoint;
using families::tiny_config;
using testing::ElementsAre;
using testing::HasSubstr;

FakeCheckpoint tiny(const std::string& family, int layers = 2) {
  FakeCheckpoint fake = families::tiny_hf(family, layers);
  fake.set("rms_norm_eps", 1e-5);
  if (family == "qwen3_moe" || family == "mixtral") fake.set("num_experts_per_tok", 2);
  return fake;
}

Result<ModelConfig> configured(const FakeCheckpoint& fake) {
  const auto checkpoint = fake.build();
  SLUICE_ASSIGN(const auto map, families::map_model(*checkpoint, ""));
  return read_config(*checkpoint, map);
}

ModelConfig accepted(const FakeCheckpoint& fake) {
  const auto config = configured(fake);
  if (!config) ADD_FAILURE() << config.error().message;
  return config ? *config : ModelConfig{};
}

std::string refused(const FakeCheckpoint& fake) {
  const auto config = configured(fake);
  EXPECT_FALSE(config.has_value());
  return config ? "" : config.error().message;
}

std::vector<uint32_t> windows_of(const ModelConfig& config) {
  std::vector<uint32_t> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.window);
  return windows;
}

numerics::RopeFrequencies rope(const Json& config, uint64_t head_dim = 128, size_t context = 0) {
  const auto scaling = read_rope(config, head_dim, 10000, "config.json");
  if (!scaling) ADD_FAILURE() << scaling.error().message;
  return scaling ? rope_rule({.scaling = *scaling}, context).frequencies
                 : numerics::RopeFrequencies{};
}

TEST(ModelConfig, Families) {
  for (const char* family : {"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"}) {
    const ModelConfig config = accepted(tiny(family));
    EXPECT_EQ(config.family, family);
    EXPECT_EQ(config.dims.layers, 2u);
    EXPECT_EQ(config.qk_norm == QkNorm::kHead, std::string(family).starts_with("qwen3"));
    EXPECT_EQ(config.sparse(), config.router.top_k == 2);
    EXPECT_THAT(windows_of(config), ElementsAre(0, 0));
    EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  }
  EXPECT_TRUE(accepted(tiny("mixtral")).router.renormalize);
  EXPECT_FALSE(accepted(tiny("qwen3_moe")).router.renormalize);
  EXPECT_TRUE(accepted(tiny("qwen3_moe").set("norm_topk_prob", true)).router.renormalize);
}

Json glm4_moe() {
  return {{"model_type", "glm4_moe"},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 32},
          {"vocab_size", 128},
          {"rms_norm_eps", 1e-5},
          {"n_routed_experts", 8},
          {"n_shared_experts", 2},
          {"num_experts_per_tok", 3},
          {"n_group", 4},
          {"topk_group", 2},
          {"first_k_dense_replace", 1},
          {"moe_intermediate_size", 32},
          {"routed_scaling_factor", 2.5},
          {"use_qk_norm", true}};
}

// Of a configuration alone: nothing is asked of tensors.
Result<ModelConfig> configured(const Json& json, const std::string& family) {
  families::ModelMap map;
  map.family = family;
  return read_config(*FakeCheckpoint(json).build(), map);
}

TEST(ModelConfig, Glm4Moe) {
  const auto config = configured(glm4_moe(), "glm4_moe");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->qk_norm, QkNorm::kHead);
  EXPECT_EQ(config->ropes[0].scaling.rotary_dim, 16u);  // half, where nothing is said
  EXPECT_EQ(config->router.score, RouterScore::kSigmoid);
  EXPECT_TRUE(config->router.renormalize);
  EXPECT_EQ(config->router.scale, 2.5f);
  EXPECT_EQ(config->router.groups, 4u);
  EXPECT_EQ(config->router.groups_kept, 2u);
  EXPECT_EQ(config->dims.shared_intermediate_size, 64u);
  EXPECT_FALSE(config->layers[0].sparse);
  EXPECT_TRUE(config->layers[1].sparse);
}

TEST(ModelConfig, RoutersThatCannotChoose) {
  const auto message = [](const char* key, const Json& value) {
    Json json = glm4_moe();
    json[key] = value;
    const auto config = configured(json, "glm4_moe");
    EXPECT_FALSE(config.has_value()) << key;
    return config ? "" : config.error().message;
  };
  EXPECT_THAT(message("n_group", 3), HasSubstr("8 experts in n_group 3 groups"));
  EXPECT_THAT(message("topk_group", 5), HasSubstr("topk_group"));
  EXPECT_THAT(message("topk_group", 1), HasSubstr("do not give 3 for each token"));
  EXPECT_THAT(message("scoring_func", "softmax"), HasSubstr("only \"sigmoid\""));
  EXPECT_THAT(message("topk_method", "greedy"), HasSubstr("topk_method \"greedy\""));
  EXPECT_THAT(message("routed_scaling_factor", 0), HasSubstr("positive"));
  EXPECT_THAT(message("num_experts_per_tok", 9), HasSubstr("num_experts_per_tok"));
}

TEST(ModelConfig, Multipliers) {
  Json json = tiny_config("granite");
  json.update({{"rms_norm_eps", 1e-5},
               {"attention_multiplier", 0.25},
               {"embedding_multiplier", 12},
               {"residual_multiplier", 0.5},
               {"logits_scaling", 8}});
  const auto config = configured(json, "granite");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->attention_scale, 0.25f);
  EXPECT_EQ(config->embedding_multiplier, 12);
  EXPECT_EQ(config->residual_multiplier, 0.5f);
  EXPECT_EQ(config->logits_multiplier, 0.125f);
  json["logits_scaling"] = 0;
  const auto refused = configured(json, "granite");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("logits_scaling should be a positive number"));
}

TEST(ModelConfig, SettingsOfOneFamily) {
  Json olmoe = tiny_config("olmoe");
  olmoe.update({{"rms_norm_eps", 1e-5}, {"num_experts", 4}, {"num_experts_per_tok", 2}});
  const auto config = configured(olmoe, "olmoe");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->qk_norm, QkNorm::kRow);
  EXPECT_EQ(config->dims.expert_intermediate_size, 96u);
  olmoe["clip_qkv"] = 8;
  EXPECT_THAT(configured(olmoe, "olmoe").error().message, HasSubstr("clip_qkv"));

  Json windows = tiny_config("qwen2_moe");
  windows.update({{"rms_norm_eps", 1e-5},
                  {"num_experts", 4},
                  {"num_experts_per_tok", 2},
                  {"moe_intermediate_size", 32},
                  {"shared_expert_intermediate_size", 48},
                  {"sliding_window", 8}});
  EXPECT_TRUE(configured(windows, "qwen2_moe").has_value());
  windows["use_sliding_window"] = true;
  EXPECT_THAT(configured(windows, "qwen2_moe").error().message, HasSubstr("layer_types"));
  windows["decoder_sparse_step"] = 2;
  EXPECT_THAT(configured(windows, "qwen2_moe").error().message, HasSubstr("decoder_sparse_step"));

  Json phi3 = tiny_config("phi3");
  phi3.update({{"rms_norm_eps", 1e-5}, {"sliding_window", 8}});
  const auto windowed = configured(phi3, "phi3");
  ASSERT_TRUE(windowed.has_value()) << windowed.error().message;
  EXPECT_TRUE(windowed->fused_projections);
  EXPECT_THAT(windows_of(*windowed), ElementsAre(8, 8));
}

TEST(ModelConfig, Windows) {
  const auto windows = [](const FakeCheckpoint& fake) { return windows_of(accepted(fake)); };
  EXPECT_THAT(windows(tiny("mistral").set("sliding_window", 8)), ElementsAre(8, 8));
  EXPECT_THAT(windows(tiny("mistral").set("sliding_window", nullptr)), ElementsAre(0, 0));
  EXPECT_THAT(windows(tiny("llama").set("sliding_window", 8)), ElementsAre(0, 0));
  const Json types = {"full_attention", "sliding_attention"};
  EXPECT_THAT(windows(tiny("llama").set("sliding_window", 8).set("layer_types", types)),
              ElementsAre(0, 8));
  EXPECT_THAT(windows(tiny("qwen2").set("sliding_window", 8)), ElementsAre(0, 0));
  EXPECT_THAT(windows(tiny("qwen2")
                          .set("sliding_window", 8)
                          .set("use_sliding_window", true)
                          .set("max_window_layers", 1)),
              ElementsAre(0, 8));
  EXPECT_THAT(refused(tiny("llama").set("layer_types", types)), HasSubstr("sliding_window"));
  EXPECT_THAT(refused(tiny("llama").set("layer_types", Json::array({"full_attention"}))),
              HasSubstr("list of 2 layers"));
  EXPECT_THAT(refused(tiny("llama").set("layer_types", {"full_attention", "linear_attention"})),
              HasSubstr("linear_attention"));
}

TEST(ModelConfig, Refusals) {
  EXPECT_THAT(refused(tiny("llama").set("hidden_act", "gelu")), HasSubstr("hidden_act \"gelu\""));
  EXPECT_THAT(refused(tiny("llama").unset("rms_norm_eps")), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(refused(tiny("llama").set("rms_norm_eps", 2)), HasSubstr("[0, 1)"));
  EXPECT_THAT(refused(tiny("qwen3_moe").set("num_experts_per_tok", 4)),
              HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(refused(tiny("llama").set("rope_theta", -1)), HasSubstr("rope_theta"));
}

TEST(Rope, BothSpellings) {
  const numerics::RopeFrequencies old =
      rope({{"rope_theta", 5e5}, {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}});
  const numerics::RopeFrequencies now =
      rope({{"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 5e5}}}});
  EXPECT_EQ(old.inv_freq, now.inv_freq);
  EXPECT_EQ(old.inv_freq.size(), 64u);
  EXPECT_DOUBLE_EQ(old.inv_freq[0], 0.25);
  EXPECT_DOUBLE_EQ(old.inv_freq[32], 0.25 / std::sqrt(5e5));
  EXPECT_EQ(rope({{"partial_rotary_factor", 0.5}}).inv_freq.size(), 32u);
  EXPECT_EQ(rope({{"rotary_dim", 48}}).inv_freq.size(), 24u);
  EXPECT_EQ(rope({{"rope_scaling", nullptr}}).attention_factor, 1);
}

// Llama 3.1's numbers: fast frequencies stay, slow ones are divided by 8, and the blend between.
TEST(Rope, Llama3) {
  const numerics::RopeFrequencies plain = rope({{"rope_theta", 5e5}});
  const numerics::RopeFrequencies scaled = rope({{"rope_theta", 5e5},
                                                 {"rope_scaling",
                                                  {{"rope_type", "llama3"},
                                                   {"factor", 8.0},
                                                   {"low_freq_factor", 1.0},
                                                   {"high_freq_factor", 4.0},
                                                   {"original_max_position_embeddings", 8192}}}});
  for (size_t j = 0; j < 64; ++j) {
    const double wavelength = 2 * std::numbers::pi / plain.inv_freq[j];
    const double ratio = plain.inv_freq[j] / scaled.inv_freq[j];
    if (wavelength < 2048) {
      EXPECT_DOUBLE_EQ(ratio, 1) << j;
    }
    if (wavelength > 8192) {
      EXPECT_DOUBLE_EQ(ratio, 8) << j;
    }
    EXPECT_GE(ratio, 1 - 1e-12);
    EXPECT_LE(ratio, 8 + 1e-12);
  }
}

// Qwen2.5's: the attention factor is 0.1 ln 4 + 1.
TEST(Rope, Yarn) {
  const numerics::RopeFrequencies plain = rope({{"rope_theta", 1e6}});
  const Json scaling = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const numerics::RopeFrequencies scaled = rope({{"rope_theta", 1e6}, {"rope_scaling", scaling}});
  EXPECT_NEAR(scaled.attention_factor, 1.1386294361119891, 1e-12);
  EXPECT_DOUBLE_EQ(scaled.inv_freq[0], plain.inv_freq[0]);
  EXPECT_DOUBLE_EQ(scaled.inv_freq[63], plain.inv_freq[63] / 4);
  for (size_t j = 1; j < 64; ++j) EXPECT_LT(scaled.inv_freq[j], scaled.inv_freq[j - 1]);
  Json exact = scaling;
  exact["truncate"] = false;
  EXPECT_NE(rope({{"rope_theta", 1e6}, {"rope_scaling", exact}}).inv_freq, scaled.inv_freq);
}

// Plain up to the length that the model was made for; beyond, all of a session as for its last
// token.
TEST(Rope, Dynamic) {
  const Json config = {{"max_position_embeddings", 2048},
                       {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}};
  const numerics::RopeFrequencies plain = rope(Json::object(), 64);
  EXPECT_EQ(rope(config, 64, 2048).inv_freq, plain.inv_freq);
  const numerics::RopeFrequencies stretched = rope(config, 64, 5000);
  EXPECT_EQ(stretched.inv_freq[0], plain.inv_freq[0]);
  EXPECT_NEAR(stretched.inv_freq[1], 0.717786485, 1e-9);  // transformers, a sequence of 5000
}

// Phi-3's spellings: the original length beside the lists, no factor.
TEST(Rope, Longrope) {
  const auto list = [](double step) {
    Json numbers = Json::array();
    for (int j = 0; j < 32; ++j) numbers.push_back(1 + step * j);
    return numbers;
  };
  const Json config = {
      {"max_position_embeddings", 131072},
      {"original_max_position_embeddings", 4096},
      {"rope_scaling",
       {{"type", "su"}, {"long_factor", list(0.37)}, {"short_factor", list(0.01)}}}};
  const numerics::RopeFrequencies plain = rope(Json::object(), 64);
  const numerics::RopeFrequencies near = rope(config, 64, 4096), far = rope(config, 64, 4097);
  EXPECT_DOUBLE_EQ(near.inv_freq[10], plain.inv_freq[10] / 1.1);
  EXPECT_DOUBLE_EQ(far.inv_freq[10], plain.inv_freq[10] / 4.7);
  EXPECT_NEAR(far.attention_factor, 1.19023807, 1e-8);  // of 131072 / 4096 = 32
  Json scaled = config;  // Phi-3.5-MoE's, with a magnitude for each list
  scaled["rope_scaling"].update({{"long_mscale", 1.3}, {"short_mscale", 1.1}});
  EXPECT_EQ(rope(scaled, 64, 4096).attention_factor, 1.1);
  EXPECT_EQ(rope(scaled, 64, 4097).attention_factor, 1.3);
  const auto scaling = read_rope(config, 64, 10000, "config.json");
  ASSERT_TRUE(scaling.has_value());
  EXPECT_EQ(numerics::rope_length(*scaling, 100), numerics::rope_length(*scaling, 4096));
  EXPECT_NE(numerics::rope_length(*scaling, 4096), numerics::rope_length(*scaling, 4097));
}

TEST(Rope, Refusals) {
  const auto message = [](const Json& config) {
    const auto rule = read_rope(config, 128, 10000, "config.json");
    EXPECT_FALSE(rule.has_value());
    return rule ? "" : rule.error().message;
  };
  EXPECT_THAT(message({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}),
              HasSubstr("max_position_embeddings"));
  EXPECT_THAT(message({{"rope_scaling", {{"type", "spiral"}, {"factor", 2.0}}}}),
              HasSubstr("\"spiral\" is not known"));
  EXPECT_THAT(message({{"original_max_position_embeddings", 4096},
                       {"rope_scaling", {{"type", "longrope"}, {"long_factor", {1, -1}}}}}),
              HasSubstr("positive"));
  EXPECT_THAT(message({{"rope_scaling", {{"type", "linear"}}}}), HasSubstr("factor"));
  EXPECT_THAT(message({{"rope_scaling", {{"type", "linear"}, {"factor", 0}}}}),
              HasSubstr("positive"));
  EXPECT_THAT(message({{"rope_scaling", 3}}), HasSubstr("object"));
  EXPECT_THAT(message({{"partial_rotary_factor", 1.5}}), HasSubstr("head_dim"));
  EXPECT_THAT(message({{"rotary_dim", 130}}), HasSubstr("rotary_dim"));
  EXPECT_THAT(message({{"rotary_dim", 7}}), HasSubstr("no even number"));
}

}  // namespace
}  // namespace sluice::model
