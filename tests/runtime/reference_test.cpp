// The CPU back-end against the scalar back-end in doubles, for every family and storage: prefill
// and token by token, window boundaries, every instruction set.
#include "runtime/reference.h"

#include <gmock/gmock.h>

namespace sluice::runtime {
namespace {

void check(const std::shared_ptr<const io::Checkpoint>& checkpoint, size_t count = 70,
           Compat compat = Compat::kTransformers) {
  expect_reference_logits(checkpoint, count, 64, compat);
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

TEST(Reference, LinearAttention) {
  for (const char* family : {"qwen3_next", "qwen3_5", "qwen3_5_moe"}) {
    SCOPED_TRACE(family);
    check(test::tiny_hybrid(family).build());
  }
}

// llama.cpp's names, blocks, and rows of q and k in its order.
TEST(Reference, Gguf) { check(test::tiny_gguf().build()); }

}  // namespace
}  // namespace sluice::runtime
