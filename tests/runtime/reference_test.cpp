// The CPU back-end against the scalar back-end in doubles, for every family and storage: prefill
// and token by token, window boundaries, every instruction set.
#include <gmock/gmock.h>

#include "families/recipe.h"
#include "model/model.h"
#include "runtime/engines.h"
#include "runtime/scalar_backend.h"

namespace sluice::runtime {
namespace {

// f32 sums over a few hundred terms and some layers, against doubles.
constexpr double kRelativeError = 2e-5;

Logits reference_logits(const std::shared_ptr<const io::Checkpoint>& checkpoint,
                        const Tokens& tokens, Compat compat) {
  const auto map = families::map_model(*checkpoint, "");
  SLUICE_CHECK(map.has_value());
  const auto config = model::read_config(*checkpoint, *map, compat);
  SLUICE_CHECK(config.has_value());
  auto weights = WeightStore::plan(checkpoint, *map);
  SLUICE_CHECK(weights.has_value());
  ThreadPool pool(1);
  NullProgress progress;
  SLUICE_CHECK((*weights)->load(pool, progress).has_value());
  ScalarBackend backend(**weights);
  model::Model model(*config, backend, tokens.size());
  const model::Segment segment{.rows = static_cast<uint32_t>(tokens.size())};
  model.forward({tokens, std::span(&segment, 1)});
  std::vector<uint32_t> rows(tokens.size());
  for (uint32_t i = 0; i < rows.size(); ++i) rows[i] = i;
  const auto logits = model.logits(rows);
  return {logits.begin(), logits.end()};
}

void expect_close(const Logits& found, const Logits& expected) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    largest = std::max<double>(largest, std::abs(expected[i]));
    difference = std::max<double>(difference, std::abs(double{found[i]} - expected[i]));
  }
  EXPECT_GT(largest, 0);
  EXPECT_LE(difference, kRelativeError * largest);
}

void check(const std::shared_ptr<const io::Checkpoint>& checkpoint, size_t count = 70,
           Compat compat = Compat::kTransformers) {
  const Tokens tokens = random_tokens(count, 64, 3);
  const Logits expected = reference_logits(checkpoint, tokens, compat);
  for (const SimdLevel level : test::simd_levels()) {
    SCOPED_TRACE(simd_level_name(level));
    EngineOptions options = f32_options();
    options.simd = level;
    options.compat = compat;
    const Opened opened = open_engine(checkpoint, options);
    Session whole = opened.engine->new_session();
    expect_close(all_logits(*opened.engine, whole, tokens), expected);
    Session single = opened.engine->new_session();
    Logits one_by_one;
    for (const uint32_t token : tokens) {
      const auto logits = single.append(std::span(&token, 1));
      ASSERT_TRUE(logits.has_value()) << logits.error().message;
      one_by_one.insert(one_by_one.end(), logits->begin(), logits->end());
    }
    expect_close(one_by_one, expected);
  }
}

TEST(Reference, Llama) { check(test::tiny_llama().build()); }

TEST(Reference, LlamaInEveryFloatType) {
  for (const auto dtype : {numerics::DType::kF16, numerics::DType::kF32})
    check(test::tiny_llama({.dtype = dtype}).build(), 20);
}

TEST(Reference, LlamaWithScaledRope) {
  test::ModelBuilder model = test::tiny_llama();
  model.config()["rope_scaling"] = {{"rope_type", "llama3"},
                                    {"factor", 8.0},
                                    {"low_freq_factor", 1.0},
                                    {"high_freq_factor", 4.0},
                                    {"original_max_position_embeddings", 32}};
  check(model.build());
  model.config()["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  check(model.build());
}

TEST(Reference, Tied) {
  test::ModelBuilder model = test::tiny_llama();
  model.config()["tie_word_embeddings"] = true;
  check(model.remove("lm_head.weight").build(), 20);
}

TEST(Reference, SlidingWindow) {
  test::ModelBuilder model = test::tiny_llama();
  model.config().update({{"model_type", "mistral"}, {"sliding_window", 9}});
  check(model.build());
  model.config().update(
      {{"model_type", "llama"}, {"layer_types", {"sliding_attention", "full_attention"}}});
  check(model.build());
}

TEST(Reference, Experts) { check(test::tiny_moe().build()); }

TEST(Reference, ExpertsWithoutRenormalising) {
  test::ModelBuilder model = test::tiny_moe();
  model.config()["norm_topk_prob"] = false;
  model.config()["mlp_only_layers"] = Json::array();
  check(model.build(), 20);
}

TEST(Reference, LatentAttention) {
  check(test::tiny_latent({.layers = 3}).build());
  check(test::tiny_latent({.layers = 3}, "deepseek_v2").build());
  check(test::tiny_latent({}, "deepseek_v32").build());
  check(test::tiny_latent({}, "glm_moe_dsa").build());
  check(test::with_blocks(test::tiny_latent(), "self_attn.kv_b_proj.weight").build(), 20);
  test::ModelBuilder glm = test::tiny_latent({.dtype = numerics::DType::kF32}, "glm4_moe_lite");
  glm.config().erase("rope_scaling");
  glm.config()["norm_topk_prob"] = false;
  check(glm.build(), 20);
}

// Corrections that make all scores negative: with mlx_lm's zeros the dropped group wins.
TEST(Reference, DroppedGroupsOfEitherFormula) {
  test::ModelBuilder model = test::tiny_latent({.dtype = numerics::DType::kF32});
  const std::string name = "model.layers.1.mlp.gate.e_score_correction_bias";
  model.remove(name).add(name, numerics::DType::kF32, {8}, std::vector<float>(8, -2.0f));
  const auto checkpoint = model.build();
  check(checkpoint, 20);
  check(checkpoint, 20, Compat::kMlx);
  const Tokens tokens = random_tokens(20, 64, 3);
  EXPECT_NE(reference_logits(checkpoint, tokens, Compat::kTransformers),
            reference_logits(checkpoint, tokens, Compat::kMlx));
}

// llama.cpp's names, blocks, and rows of q and k in its order.
TEST(Reference, Gguf) { check(test::tiny_gguf().build()); }

}  // namespace
}  // namespace sluice::runtime
