// Perturbed weights compute as if they had been stored that way, wherever they lie, and leave no
// trace.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

constexpr uint64_t kVocabulary = 64;
constexpr size_t kTokens = 24;
constexpr test::TinyOptions kTiny{.dtype = numerics::DType::kF32};

// Another number for every element.
float addition(uint64_t row, size_t column) {
  return 0.01f * static_cast<float>(static_cast<int>((row * 31 + column * 17) % 13) - 6);
}

void add_by_element(uint64_t row, std::span<const float>, std::span<float> delta) {
  for (size_t i = 0; i < delta.size(); ++i) delta[i] = addition(row, i);
}

void add_quarter(uint64_t, std::span<const float> weights, std::span<float> delta) {
  for (size_t i = 0; i < delta.size(); ++i) delta[i] = 0.25f * weights[i];
}

using Change = std::function<float(float value, uint64_t row, size_t column)>;

// Rows of an f32 tensor in place; the first of them counts as first_row.
void change_tensor(test::ModelBuilder& model, const std::string& name, uint64_t first_row,
                   const Change& change) {
  std::vector<std::byte>& bytes = model.bytes(name);
  const uint64_t columns = model.shape(name).back();
  for (uint64_t i = 0; i < bytes.size() / sizeof(float); ++i) {
    float value;
    std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
    value = change(value, first_row + i / columns, static_cast<size_t>(i % columns));
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  }
}

Logits run(Engine& engine) {
  Session session = engine.new_session();
  return all_logits(engine, session, random_tokens(kTokens, kVocabulary, 3));
}

void perturb(Engine& engine, const std::string& name, RowChange change) {
  const Perturbation perturbation{name, std::move(change)};
  const Status status = engine.perturb({&perturbation, 1});
  ASSERT_TRUE(status.has_value()) << status.error().message;
}

void expect_near(const Logits& found, const Logits& expected) {
  ASSERT_EQ(found.size(), expected.size());
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-5 * largest) << i;
}

// The weight `name` perturbed, against a model whose tensors were changed.
void expect_as_stored(const test::ModelBuilder& model, const std::string& name,
                      const RowChange& change, const test::ModelBuilder& changed) {
  const Opened opened = open_engine(model.build(), f32_options());
  const Logits before = run(*opened.engine);
  perturb(*opened.engine, name, change);
  const Logits perturbed = run(*opened.engine);
  EXPECT_NE(perturbed, before) << name;
  expect_near(perturbed, run(*open_engine(changed.build(), f32_options()).engine));
  ASSERT_TRUE(opened.engine->perturb({}).has_value());
  EXPECT_EQ(run(*opened.engine), before) << name;
}

TEST(Perturbation, ElementsOfMatricesAndEmbeddings) {
  const test::ModelBuilder model = test::tiny_llama(kTiny);
  for (const std::string name :
       {"model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight",
        "model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight", "lm_head.weight"}) {
    test::ModelBuilder changed = model;
    change_tensor(changed, name, 0, [](float value, uint64_t row, size_t column) {
      return value + addition(row, column);
    });
    expect_as_stored(model, name, add_by_element, changed);
  }
}

TEST(Perturbation, ATiedEmbeddingChangesInBothPlaces) {
  test::ModelBuilder model = test::tiny_llama(kTiny);
  model.remove("lm_head.weight").config()["tie_word_embeddings"] = true;
  test::ModelBuilder changed = model;
  change_tensor(
      changed, "model.embed_tokens.weight", 0,
      [](float value, uint64_t row, size_t column) { return value + addition(row, column); });
  expect_as_stored(model, "model.embed_tokens.weight", add_by_element, changed);
}

TEST(Perturbation, RowsOfStackedExpertsAreCountedOn) {
  const test::ModelBuilder model = test::tiny_moe(kTiny);
  for (const std::string projection : {"gate_proj", "up_proj", "down_proj"}) {
    test::ModelBuilder changed = model;
    for (uint64_t expert = 0; expert < 4; ++expert) {
      const std::string name =
          fmt::format("model.layers.1.mlp.experts.{}.{}.weight", expert, projection);
      change_tensor(
          changed, name, expert * changed.shape(name).front(),
          [](float value, uint64_t row, size_t column) { return value + addition(row, column); });
    }
    expect_as_stored(model, fmt::format("model.layers.1.mlp.switch_mlp.{}.weight", projection),
                     add_by_element, changed);
  }
}

// The matrices of heads: the keys' half of kv_b is multiplied by transposed, the values' is not.
TEST(Perturbation, MatricesOfHeads) {
  constexpr uint64_t kNope = 32, kValue = 24;
  const test::ModelBuilder model = test::tiny_latent(kTiny);
  for (const bool keys : {true, false}) {
    test::ModelBuilder changed = model;
    change_tensor(changed, "model.layers.1.self_attn.kv_b_proj.weight", 0,
                  [&](float value, uint64_t row, size_t) {
                    return (row % (kNope + kValue) < kNope) == keys ? 1.25f * value : value;
                  });
    expect_as_stored(
        model, fmt::format("model.layers.1.self_attn.{}.weight", keys ? "embed_q" : "unembed_out"),
        add_quarter, changed);
  }
}

TEST(Perturbation, StreamedWeightsAndThreadsGiveTheSameBits) {
  for (const auto& model : {test::tiny_moe(), test::tiny_llama(), test::tiny_gguf()}) {
    const auto checkpoint = model.build();
    const Opened resident = open_engine(checkpoint, f32_options(), 3);
    EngineOptions options = f32_options();
    options.weight_bytes_max = resident.engine->memory().weights * 3 / 4;
    options.window_bytes = 4096;
    const Opened streamed = open_engine(checkpoint, options, 1);
    EXPECT_LT(streamed.engine->memory().weights, resident.engine->memory().weights);
    for (const std::string name :
         {"model.layers.0.self_attn.v_proj.weight", "model.embed_tokens.weight",
          "model.layers.0.mlp.switch_mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight"}) {
      if (!resident.engine->has_matrix(name)) continue;
      perturb(*resident.engine, name, add_by_element);
      perturb(*streamed.engine, name, add_by_element);
      EXPECT_EQ(run(*resident.engine), run(*streamed.engine)) << name;
    }
  }
}

TEST(Perturbation, NamesThatAreNoMatrixChangeNothing) {
  const Opened opened = open_engine(test::tiny_llama(kTiny).build(), f32_options());
  const Logits before = run(*opened.engine);
  for (const std::string name : {"model.norm.weight", "model.layers.9.mlp.up_proj.weight", ""}) {
    EXPECT_FALSE(opened.engine->has_matrix(name));
    const Perturbation several[] = {{"lm_head.weight", add_by_element}, {name, add_by_element}};
    const Status status = opened.engine->perturb(several);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, ErrorCode::kNotFound);
    EXPECT_THAT(status.error().message, testing::HasSubstr("no matrix of the model"));
    EXPECT_EQ(run(*opened.engine), before);
  }
}

}  // namespace
}  // namespace sluice::runtime
