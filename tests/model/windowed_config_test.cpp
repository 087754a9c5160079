// Configurations of families whose layers see windows or chunks of the context: gpt-oss, Gemma 3,
// Gemma 4 and Llama 4, and of Nemotron-H, whose layers are of several kinds; what they leave to
// transformers, and what is refused.
#include <gmock/gmock.h>

#include <cmath>

#include "families/fake_checkpoint.h"
#include "model/config.h"

namespace sluice::model {
namespace {

using families::FakeCheckpoint;
using testing::ElementsAre;
using testing::HasSubstr;

Result<ModelConfig> configured(const Json& config) {
  families::ModelMap map;
  map.family = config["model_type"].get<std::string>();
  map.dtype = numerics::DType::kBF16;
  if (config.contains("text_config")) map.prefix = "language_model.";
  return read_config(*FakeCheckpoint(config).build(), map);
}

ModelConfig accepted(const Json& config) {
  const auto read = configured(config);
  if (!read) ADD_FAILURE() << read.error().message;
  return read ? *read : ModelConfig{};
}

Json changed(Json config, const char* key, Json value) {
  (config.contains("text_config") ? config["text_config"] : config)[key] = std::move(value);
  return config;
}

std::string refused(const Json& config) {
  const auto read = configured(config);
  EXPECT_FALSE(read.has_value());
  return read ? "" : read.error().message;
}

template <class Value>
std::vector<Value> of_layers(const ModelConfig& config, Value LayerConfig::* member) {
  std::vector<Value> values;
  for (const LayerConfig& layer : config.layers) values.push_back(layer.*member);
  return values;
}

Json sizes(int layers) {
  return {{"hidden_size", 2560},
          {"intermediate_size", 96},
          {"num_hidden_layers", layers},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 128},
          {"head_dim", 64}};
}

Json gpt_oss() {
  Json config = sizes(3);
  config.update({{"model_type", "gpt_oss"},
                 {"num_local_experts", 4},
                 {"num_experts_per_tok", 2},
                 {"rms_norm_eps", 1e-5},
                 {"sliding_window", 128},
                 {"rope_theta", 150000},
                 {"rope_scaling",
                  {{"rope_type", "yarn"},
                   {"factor", 32.0},
                   {"beta_fast", 32.0},
                   {"beta_slow", 1.0},
                   {"original_max_position_embeddings", 4096},
                   {"truncate", false}}}});
  return config;
}

TEST(GptOss, Settings) {
  const ModelConfig config = accepted(gpt_oss());
  EXPECT_THAT(of_layers(config, &LayerConfig::window), ElementsAre(128, 0, 128));
  EXPECT_EQ(config.activation.kind, Activation::kClampedSwiglu);
  EXPECT_FLOAT_EQ(config.activation.alpha, 1.702f);
  EXPECT_FLOAT_EQ(config.activation.limit, 7);
  EXPECT_EQ(config.router.score, RouterScore::kSoftmaxOfChosen);
  EXPECT_EQ(config.router.top_k, 2u);
  EXPECT_EQ(config.expert_names.router, "mlp.router");
  EXPECT_FALSE(config.ropes[0].scaling.truncate);
  // The published figures: A = 0.1 · ln 32 + 1, on cos and sin alike.
  EXPECT_NEAR(rope_rule(config.ropes[0], 100).frequencies.attention_factor, 1.34657, 1e-5);
}

TEST(GptOss, LayerTypesDecide) {
  const ModelConfig config = accepted(changed(
      gpt_oss(), "layer_types", {"full_attention", "sliding_attention", "sliding_attention"}));
  EXPECT_THAT(of_layers(config, &LayerConfig::window), ElementsAre(0, 128, 128));
}

TEST(GptOss, Refusals) {
  EXPECT_THAT(refused(changed(gpt_oss(), "layer_types", {"full_attention"})),
              HasSubstr("layer_types should be a list of 3 layers"));
  EXPECT_THAT(refused(changed(gpt_oss(), "sliding_window", nullptr)), HasSubstr("sliding_window"));
  EXPECT_THAT(refused(changed(gpt_oss(), "swiglu_limit", -1)), HasSubstr("swiglu_limit"));
  EXPECT_THAT(refused(changed(gpt_oss(), "num_experts_per_tok", 5)),
              HasSubstr("num_experts_per_tok"));
}

Json gemma3_text(int layers = 7) {
  Json config = sizes(layers);
  config.update({{"model_type", "gemma3_text"}, {"sliding_window", 512}});
  return config;
}

TEST(Gemma3, WhatIsLeftToTransformers) {
  const ModelConfig config = accepted(gemma3_text());
  EXPECT_THAT(of_layers(config, &LayerConfig::window),
              ElementsAre(512, 512, 512, 512, 512, 0, 512));
  EXPECT_THAT(of_layers(config, &LayerConfig::rope), ElementsAre(1, 1, 1, 1, 1, 0, 1));
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_EQ(config.ropes[0].scaling.rope_theta, 1e6);
  EXPECT_EQ(config.ropes[1].scaling.rope_theta, 1e4);
  EXPECT_FLOAT_EQ(config.attention_scale, 1 / 16.0f);
  EXPECT_EQ(config.embedding_multiplier, 50.5f) << "the root of 2560, rounded to bf16";
  EXPECT_EQ(config.norm, NormKind::kRmsLessOne);
  EXPECT_EQ(config.activation.kind, Activation::kGeluTanh);
  EXPECT_TRUE(config.sandwich_norms);
  EXPECT_EQ(config.attention_softcap, 0);
  EXPECT_EQ(config.logits_softcap, 0);
}

TEST(Gemma3, EmbeddingsArePublishedFigures) {
  for (const auto& [width, factor] : {std::pair{1152, 34.0f}, {3840, 62.0f}, {5376, 73.5f}})
    EXPECT_EQ(accepted(changed(gemma3_text(), "hidden_size", width)).embedding_multiplier, factor);
}

TEST(Gemma3, GlobalLayersAloneAreScaled) {
  Json config = gemma3_text();
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  config["rope_local_base_freq"] = 20000.0;
  config["query_pre_attn_scalar"] = 168;
  const ModelConfig read = accepted(config);
  EXPECT_EQ(read.ropes[0].scaling.rule, numerics::RopeRule::kLinear);
  EXPECT_EQ(read.ropes[1].scaling.rule, numerics::RopeRule::kDefault);
  EXPECT_EQ(read.ropes[1].scaling.rope_theta, 20000);
  EXPECT_FLOAT_EQ(read.attention_scale, static_cast<float>(1 / std::sqrt(168.0)));
}

TEST(Gemma3, SpellingsOfTransformers5) {
  Json config = gemma3_text(2);
  config["layer_types"] = {"full_attention", "sliding_attention"};
  config["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 2e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 3e4}}}};
  config["attn_logit_softcapping"] = 50.0;
  config["final_logit_softcapping"] = 30.0;
  const ModelConfig read = accepted(config);
  EXPECT_THAT(of_layers(read, &LayerConfig::window), ElementsAre(0, 512));
  EXPECT_THAT(of_layers(read, &LayerConfig::rope), ElementsAre(0, 1));
  EXPECT_EQ(read.ropes[0].scaling.rule, numerics::RopeRule::kLinear);
  EXPECT_EQ(read.ropes[0].scaling.rope_theta, 2e6);
  EXPECT_EQ(read.ropes[1].scaling.rope_theta, 3e4);
  EXPECT_EQ(read.attention_softcap, 50);
  EXPECT_EQ(read.logits_softcap, 30);
}

TEST(Gemma3, Refusals) {
  EXPECT_THAT(refused(changed(gemma3_text(), "hidden_activation", "gelu")), HasSubstr("\"gelu\""));
  EXPECT_THAT(refused(changed(gemma3_text(), "query_pre_attn_scalar", 0)),
              HasSubstr("query_pre_attn_scalar"));
  EXPECT_THAT(refused(changed(gemma3_text(), "rms_norm_eps", 2)), HasSubstr("rms_norm_eps"));
}

Json llama4() {
  Json text = sizes(5);
  text.update({{"intermediate_size_mlp", 192},
               {"interleave_moe_layer_step", 1},
               {"num_local_experts", 4},
               {"num_experts_per_tok", 1},
               {"rms_norm_eps", 1e-5},
               {"rope_theta", 500000.0}});
  return {{"model_type", "llama4"}, {"text_config", text}};
}

TEST(Llama4, WhatIsLeftToTransformers) {
  const ModelConfig config = accepted(llama4());
  EXPECT_EQ(config.prefix, "language_model.model.");
  EXPECT_EQ(config.head, "language_model.lm_head");
  EXPECT_THAT(of_layers(config, &LayerConfig::uses_rope),
              ElementsAre(true, true, true, false, true));
  EXPECT_THAT(of_layers(config, &LayerConfig::chunk), ElementsAre(8192, 8192, 8192, 0, 8192));
  EXPECT_EQ(config.ropes[0].style, RopeStyle::kInterleaved);
  EXPECT_EQ(config.qk_norm, QkNorm::kRotated);
  EXPECT_FLOAT_EQ(config.query_scale.factor, 0.1f);
  EXPECT_EQ(config.query_scale.interval, 8192u);
  EXPECT_TRUE(config.scales_expert_input);
  EXPECT_EQ(config.router.score, RouterScore::kSigmoid);
  EXPECT_EQ(config.dense_path, "feed_forward");
}

TEST(Llama4, WhatIsSaid) {
  Json config = changed(llama4(), "no_rope_layers", {0, 1, 1, 1, 1});
  config = changed(changed(config, "use_qk_norm", false), "attn_temperature_tuning", false);
  const ModelConfig read = accepted(changed(config, "attention_chunk_size", 64));
  EXPECT_THAT(of_layers(read, &LayerConfig::uses_rope), ElementsAre(false, true, true, true, true));
  EXPECT_THAT(of_layers(read, &LayerConfig::chunk), ElementsAre(0, 64, 64, 64, 64));
  EXPECT_EQ(read.qk_norm, QkNorm::kNone);
  EXPECT_EQ(read.query_scale.factor, 0);
  EXPECT_EQ(accepted(changed(llama4(), "attn_temperature_tuning", 0)).query_scale.factor, 0);
}

TEST(Llama4, Refusals) {
  EXPECT_THAT(refused(changed(llama4(), "no_rope_layers", {1, 1})),
              HasSubstr("no_rope_layers should be a list of 5 layers"));
  EXPECT_THAT(refused(changed(llama4(), "no_rope_layers", {1, 1, 2, 1, 1})),
              HasSubstr("no_rope_layers"));
  EXPECT_THAT(refused(changed(llama4(), "attention_chunk_size", 0)),
              HasSubstr("attention_chunk_size"));
  EXPECT_THAT(refused(changed(llama4(), "attn_temperature_tuning", "yes")),
              HasSubstr("attn_temperature_tuning"));
}

Json gemma4() {
  Json text = sizes(6);
  text.update({{"model_type", "gemma4_text"},
               {"layer_types",
                {"sliding_attention", "full_attention", "sliding_attention", "full_attention",
                 "sliding_attention", "full_attention"}},
               {"global_head_dim", 128},
               {"num_kv_shared_layers", 3},
               {"use_double_wide_mlp", true},
               {"sliding_window", 100},
               {"hidden_size_per_layer_input", 32},
               {"vocab_size_per_layer_input", 128},
               {"final_logit_softcapping", 30.0}});
  return {{"model_type", "gemma4"}, {"text_config", text}};
}

TEST(Gemma4, Settings) {
  const ModelConfig config = accepted(gemma4());
  EXPECT_THAT(of_layers(config, &LayerConfig::window), ElementsAre(100, 0, 100, 0, 100, 0));
  EXPECT_THAT(of_layers(config, &LayerConfig::lender), ElementsAre(0, 1, 2, 1, 2, 1));
  EXPECT_THAT(of_layers(config, &LayerConfig::intermediate_size),
              ElementsAre(96, 96, 96, 192, 192, 192));
  EXPECT_EQ(config.layers[1].kv, (KvDims{2, 128, 128}));
  EXPECT_EQ(config.layers[2].kv, (KvDims{2, 64, 64}));
  const std::vector<KvDims> caches = config.caches();
  EXPECT_EQ(caches[2].heads, 2u);
  for (const size_t borrower : {3, 4, 5}) EXPECT_EQ(caches[borrower].heads, 0u) << borrower;
  EXPECT_EQ(config.attention_scale, 1);
  EXPECT_EQ(config.logits_softcap, 30);
  EXPECT_EQ(config.embedding_multiplier, 50.5f);  // √2560 in bf16
  // A quarter of a global head's pairs turn.
  const auto global = rope_rule(config.ropes[0], 0).frequencies.inv_freq;
  ASSERT_EQ(global.size(), 64u);
  EXPECT_GT(global[15], 0);
  EXPECT_EQ(global[16], 0);
  EXPECT_EQ(rope_rule(config.ropes[1], 0).frequencies.inv_freq.size(), 32u);
}

TEST(Gemma4, ExpertsBesideAndKeysForValues) {
  Json config = gemma4();
  config["text_config"].update({{"enable_moe_block", true},
                                {"num_experts", 8},
                                {"top_k_experts", 3},
                                {"moe_intermediate_size", 64},
                                {"attention_k_eq_v", true},
                                {"num_global_key_value_heads", 1},
                                {"hidden_size_per_layer_input", 0}});
  const ModelConfig read = accepted(config);
  EXPECT_TRUE(read.dense_beside_experts);
  EXPECT_TRUE(read.keys_are_values);
  EXPECT_FALSE(read.layer_inputs);
  EXPECT_EQ(read.router.top_k, 3u);
  EXPECT_EQ(read.layers[1].kv.heads, 1u);
}

TEST(Gemma4, Refused) {
  EXPECT_THAT(refused(changed(gemma4(), "use_bidirectional_attention", "all")),
              HasSubstr("use_bidirectional_attention \"all\""));
  EXPECT_THAT(refused(changed(gemma4(), "vocab_size_per_layer_input", 100)),
              HasSubstr("vocab_size_per_layer_input 100 is less than vocab_size 128"));
  EXPECT_THAT(refused(changed(gemma4(), "num_kv_shared_layers", 5)),
              HasSubstr("layer 1 borrows keys and values"));
  EXPECT_THAT(refused(changed(gemma4(), "hidden_activation", "silu")), HasSubstr("silu"));
  EXPECT_THAT(refused(changed(gemma4(), "rope_parameters", Json{{"full_attention", 3}})),
              HasSubstr("no numbers of full_attention"));
}

Json nemotron() {
  Json config = sizes(4);
  config.update({{"model_type", "nemotron_h"},
                 {"hybrid_override_pattern", "M*E-"},
                 {"layer_norm_epsilon", 1e-5},
                 {"mamba_num_heads", 6},
                 {"mamba_head_dim", 8},
                 {"n_groups", 2},
                 {"ssm_state_size", 16},
                 {"conv_kernel", 4},
                 {"n_routed_experts", 8},
                 {"n_shared_experts", 1},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", 32},
                 {"moe_shared_expert_intermediate_size", 48},
                 {"moe_latent_size", 40}});
  return config;
}

TEST(NemotronH, Settings) {
  const ModelConfig config = accepted(nemotron());
  EXPECT_THAT(
      of_layers(config, &LayerConfig::mixer),
      ElementsAre(MixerKind::kMamba, MixerKind::kAttention, MixerKind::kNone, MixerKind::kNone));
  EXPECT_THAT(of_layers(config, &LayerConfig::feeds_forward),
              ElementsAre(false, false, true, true));
  EXPECT_THAT(of_layers(config, &LayerConfig::sparse), ElementsAre(false, false, true, false));
  EXPECT_FALSE(config.layers[1].uses_rope);
  EXPECT_EQ(config.step_min, 0);
  EXPECT_TRUE(std::isinf(config.step_max));
  const RecurrentSizes sizes = recurrent_sizes(config);
  EXPECT_EQ(sizes.layers, 1u);
  EXPECT_EQ(sizes.columns, 6u * 8 + 2 * 2 * 16);
  EXPECT_EQ(sizes.key_dim, 16u);
  EXPECT_EQ(sizes.value_dim, 8u);
  // As near to infinity as JSON comes.
  const Json limits = Json::array({0.1, 1.7976931348623157e308});
  const ModelConfig limited = accepted(changed(nemotron(), "time_step_limit", limits));
  EXPECT_FLOAT_EQ(limited.step_min, 0.1f);
  EXPECT_TRUE(std::isinf(limited.step_max));
}

TEST(NemotronH, Refused) {
  EXPECT_THAT(refused(changed(nemotron(), "time_step_limit", {3, 1})),
              HasSubstr("two ascending numbers"));
  EXPECT_THAT(refused(changed(nemotron(), "mlp_hidden_act", "silu")), HasSubstr("mlp_hidden_act"));
  EXPECT_THAT(refused(changed(nemotron(), "n_groups", 4)),
              HasSubstr("mamba_num_heads 6 is no multiple of n_groups 4"));
  EXPECT_THAT(refused(changed(nemotron(), "conv_kernel", 40)), HasSubstr("more than 16"));
  EXPECT_THAT(refused(changed(nemotron(), "layer_norm_epsilon", 2)),
              HasSubstr("layer_norm_epsilon"));
}

}  // namespace
}  // namespace sluice::model
