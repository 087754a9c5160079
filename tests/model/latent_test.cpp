// Configurations of the families with latent attention: what they come to, where transformers and
// mlx_lm differ, and what is refused.
#include <gmock/gmock.h>

#include <cmath>

#include "model/config.h"
#include "support/models.h"

namespace sluice::model {
namespace {

using testing::HasSubstr;

Result<ModelConfig> configured(const test::ModelBuilder& model, Compat compat) {
  const auto checkpoint = model.build();
  SLUICE_ASSIGN(const auto map, families::map_model(*checkpoint, ""));
  return read_config(*checkpoint, map, compat);
}

ModelConfig accepted(const test::ModelBuilder& model, Compat compat = Compat::kTransformers) {
  const auto config = configured(model, compat);
  if (!config) ADD_FAILURE() << config.error().message;
  return config ? *config : ModelConfig{};
}

std::string refused(const test::ModelBuilder& model) {
  const auto config = configured(model, Compat::kTransformers);
  EXPECT_FALSE(config.has_value());
  return config ? "" : config.error().message;
}

TEST(LatentConfig, OneHeadWhoseValuesLieInItsKeys) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_k2"}) {
    const ModelConfig config = accepted(test::tiny_latent({.layers = 3}, family));
    EXPECT_EQ(config.family, family);
    for (const LayerConfig& layer : config.layers) {
      EXPECT_EQ(layer.mixer, MixerKind::kLatentAttention);
      EXPECT_EQ(layer.kv, (KvDims{1, 64 + 16, 64, true}));
    }
    EXPECT_EQ(config.ropes[0].style, RopeStyle::kInterleaved);
    EXPECT_EQ(config.ropes[0].first, 64u);
    EXPECT_EQ(config.ropes[0].scaling.rotary_dim, 16u);
  }
}

TEST(LatentConfig, ScoresAreScaledByYarnsMagnitude) {
  test::ModelBuilder model = test::tiny_latent();
  const double magnitude = 0.1 * 0.8 * std::log(4.0) + 1;
  EXPECT_FLOAT_EQ(accepted(model).attention_scale,
                  static_cast<float>(magnitude * magnitude / std::sqrt(32.0 + 16)));
  model.config()["rope_scaling"] = nullptr;
  EXPECT_FLOAT_EQ(accepted(model).attention_scale, 1 / std::sqrt(32.0f + 16));
}

TEST(LatentConfig, Routers) {
  const RouterRule corrected = accepted(test::tiny_latent()).router;
  EXPECT_EQ(corrected.score, RouterScore::kSigmoid);
  EXPECT_TRUE(corrected.renormalize);
  EXPECT_EQ(corrected.scale, 2.5f);
  EXPECT_EQ(corrected.groups, 2u);
  EXPECT_EQ(corrected.groups_kept, 1u);
  EXPECT_EQ(corrected.group_best, 2u);
  test::ModelBuilder model = test::tiny_latent({}, "deepseek_v2");
  const RouterRule grouped = accepted(model).router;
  EXPECT_EQ(grouped.score, RouterScore::kSoftmax);
  EXPECT_FALSE(grouped.renormalize);
  EXPECT_EQ(grouped.groups, 2u);
  EXPECT_EQ(grouped.group_best, 1u);
  model.config()["topk_method"] = "greedy";
  EXPECT_EQ(accepted(model).router.groups, 1u);
}

TEST(LatentConfig, DefaultsOfTheFamilies) {
  for (const auto& [family, scale] : {std::pair{"deepseek_v2", 1.0f},
                                      {"deepseek_v3", 2.5f},
                                      {"glm4_moe_lite", 1.8f},
                                      {"kimi_k2", 2.5f}}) {
    test::ModelBuilder model = test::tiny_latent({}, family);
    model.config().erase("routed_scaling_factor");
    EXPECT_EQ(accepted(model).router.scale, scale) << family;
  }
  test::ModelBuilder glm = test::tiny_latent({}, "glm4_moe_lite");
  EXPECT_EQ(accepted(glm).ropes[0].scaling.rope_theta, 1e6);
}

TEST(LatentConfig, Indexers) {
  for (const bool glm : {false, true}) {
    test::ModelBuilder model = test::tiny_latent({}, glm ? "glm_moe_dsa" : "deepseek_v32");
    const ModelConfig config = accepted(model);
    EXPECT_EQ(config.index_top_k, 12u);
    const std::vector<KvDims> caches = config.caches();
    ASSERT_EQ(caches.size(), 4u);
    EXPECT_EQ(caches[1], (KvDims{1, 64 + 16, 64, true}));
    EXPECT_EQ(caches[config.layers[1].index_cache], (KvDims{1, 32, 0, true}));
    const RopeConfig& rope = config.ropes[config.index_rope];
    EXPECT_EQ(rope.first, 0u);
    EXPECT_EQ(rope.style, glm ? RopeStyle::kInterleaved : RopeStyle::kHalf);
    EXPECT_EQ(config.index_norm_eps, 1e-6f);
    EXPECT_EQ(accepted(model, Compat::kMlx).index_norm_eps, 1e-5f);
    model.config()["indexer_rope_interleave"] = !glm;
    EXPECT_EQ(accepted(model).ropes[1].style, rope.style);
    EXPECT_NE(accepted(model, Compat::kMlx).ropes[1].style, rope.style);
  }
  EXPECT_EQ(accepted(test::tiny_latent()).caches().size(), 2u);
}

// Each difference by itself.
TEST(LatentConfig, WhereMlxDiffers) {
  test::ModelBuilder glm = test::tiny_latent({}, "glm4_moe_lite");
  glm.config()["rms_norm_eps"] = 1e-4;
  EXPECT_EQ(accepted(glm).latent_norm_eps, 1e-6f);
  EXPECT_EQ(accepted(glm, Compat::kMlx).latent_norm_eps, 1e-4f);
  test::ModelBuilder v3 = test::tiny_latent();
  v3.config()["rms_norm_eps"] = 1e-4;
  EXPECT_EQ(accepted(v3, Compat::kMlx).latent_norm_eps, 1e-6f);

  EXPECT_EQ(accepted(v3).router.dropped_score, -HUGE_VALF);
  EXPECT_EQ(accepted(v3, Compat::kMlx).router.dropped_score, 0);

  v3.config()["rope_scaling"]["truncate"] = false;
  EXPECT_FALSE(accepted(v3).ropes[0].scaling.truncate);
  EXPECT_TRUE(accepted(v3, Compat::kMlx).ropes[0].scaling.truncate);

  v3.config()["rope_scaling"].erase("mscale_all_dim");
  v3.config()["rope_scaling"]["mscale"] = 2.0;
  const auto factor = [&](Compat compat) {
    return rope_rule(accepted(v3, compat).ropes[0], 64).frequencies.attention_factor;
  };
  EXPECT_DOUBLE_EQ(factor(Compat::kTransformers), 0.1 * std::log(4.0) + 1);
  EXPECT_DOUBLE_EQ(factor(Compat::kMlx), 0.1 * 2 * std::log(4.0) + 1);

  v3.config()["rope_interleave"] = false;
  EXPECT_EQ(accepted(v3).ropes[0].style, RopeStyle::kHalf);
  EXPECT_EQ(accepted(v3, Compat::kMlx).ropes[0].style, RopeStyle::kInterleaved);
}

TEST(LatentConfig, WhatIsRefused) {
  const auto with = [](const char* key, Json value, const char* family = "deepseek_v3") {
    test::ModelBuilder model = test::tiny_latent({}, family);
    model.config()[key] = std::move(value);
    return refused(model);
  };
  EXPECT_THAT(with("n_group", 3), HasSubstr("8 experts in n_group 3 groups"));
  EXPECT_THAT(with("topk_group", 3), HasSubstr("topk_group 3"));
  EXPECT_THAT(with("n_group", 8), HasSubstr("do not give 2 for each token"));
  EXPECT_THAT(with("topk_method", "greedy"), HasSubstr("topk_method \"greedy\" is not known"));
  EXPECT_THAT(with("scoring_func", "softmax"), HasSubstr("scoring_func \"softmax\""));
  EXPECT_THAT(with("scoring_func", "sigmoid", "deepseek_v2"), HasSubstr("only \"softmax\""));
  EXPECT_THAT(with("num_experts_per_tok", 9), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(with("routed_scaling_factor", 0), HasSubstr("routed_scaling_factor"));
  EXPECT_THAT(with("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(with("index_topk", 0, "deepseek_v32"), HasSubstr("index_topk"));
  EXPECT_THAT(with("indexer_types", {"full", "shared"}, "glm_moe_dsa"),
              HasSubstr("layers share an indexer"));
  EXPECT_THAT(with("q_lora_rank", nullptr, "deepseek_v32"), HasSubstr("q_lora_rank is null"));
  EXPECT_THAT(with("mlp_layer_types", {"sparse", "dense"}), HasSubstr("mlp_layer_types"));
  EXPECT_THAT(with("qk_rope_head_dim", 15), HasSubstr("tensors are wrong"));
}

}  // namespace
}  // namespace sluice::model
