// Recording what enters products: every input once, shared ones together, experts' own apart; the
// same bytes whatever the memory, threads and chunks.
#include <gmock/gmock.h>

#include "evaluate/activations.h"
#include "io/fault.h"
#include "numerics/feedback.h"
#include "runtime/engines.h"

namespace sluice::evaluate {
namespace {

using runtime::Opened;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

std::vector<Window> some_windows() {
  std::vector<Window> windows;
  for (uint64_t i = 0; i < 3; ++i)
    windows.push_back({runtime::random_tokens(20 + 7 * i, 64, i), 1});
  return windows;
}

// All matrices but routers and embeddings.
uint64_t wanted(const families::ModelMap& map, std::string_view name) {
  for (const families::OutputModule& module : map.modules)
    if (module.tensor_name() == name && module.quantizable &&
        module.role != families::Role::kRouter && module.role != families::Role::kEmbedding)
      return module.experts();
  return 0;
}

struct Recorded {
  std::shared_ptr<const io::Activations> activations;
  size_t passes = 0;
};

Recorded record(const test::ModelBuilder& model, uint64_t memory_bytes, size_t threads,
                size_t chunk_tokens = 512) {
  const auto checkpoint = model.build();
  const families::ModelMap map = test::map_of(*checkpoint);
  runtime::EngineOptions options = runtime::f32_options();
  options.chunk_tokens = chunk_tokens;
  const Opened opened = runtime::open_engine(checkpoint, options, threads);
  io::MemoryStorage storage;
  NullProgress progress;
  const auto windows = some_windows();
  const auto plan = plan_activations(
      *opened.engine, windows, [&](std::string_view name) { return wanted(map, name); },
      memory_bytes, "record", storage, nullptr);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
  const Status status = record_activations(*opened.engine, windows, *plan, "record", storage,
                                           *opened.pool, progress, nullptr);
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  auto made = io::Activations::open(storage, "record");
  EXPECT_TRUE(made) << (made ? "" : made.error().message);
  return {std::move(*made), plan->passes.size()};
}

TEST(Moments, AreSumsOfProducts) {
  ThreadPool pool(3);
  constexpr size_t kColumns = 96, kRows = 11;
  test::Random random(3);
  const auto values = random.normals(kRows * kColumns, 1);
  io::Moments moments;
  moments.values.resize(numerics::triangle_elements(kColumns));
  std::vector<float> packed;
  add_moments(std::span(values).first(4 * kColumns), kColumns, moments, packed, pool);
  add_moments(std::span(values).subspan(4 * kColumns), kColumns, moments, packed, pool);
  EXPECT_EQ(moments.rows, kRows);
  for (size_t i = 0, at = 0; i < kColumns; ++i)
    for (size_t j = i; j < kColumns; ++j, ++at) {
      float sum = 0;
      for (size_t t = 0; t < kRows; ++t) {
        const float product = values[t * kColumns + i] * values[t * kColumns + j];
        sum = sum + product;
      }
      EXPECT_EQ(moments.values[at], sum) << i << " " << j;
    }
}

TEST(Recording, ProductsOfOneInputShareIt) {
  const Recorded dense = record(test::tiny_llama(), 1 << 30, 2);
  const auto& inputs = dense.activations->manifest().inputs;
  ASSERT_EQ(inputs.size(), 9u);  // four a layer, and the head's
  EXPECT_THAT(inputs[0].weights, UnorderedElementsAre("model.layers.0.self_attn.q_proj.weight",
                                                      "model.layers.0.self_attn.k_proj.weight",
                                                      "model.layers.0.self_attn.v_proj.weight"));
  EXPECT_THAT(inputs[3].weights, ElementsAre("model.layers.0.mlp.down_proj.weight"));
  EXPECT_THAT(inputs.back().weights, ElementsAre("lm_head.weight"));
  uint64_t tokens = 0;
  for (const Window& window : some_windows()) tokens += window.ids.size();
  EXPECT_EQ(dense.activations->manifest().tokens, tokens);
  for (size_t i = 0; i < inputs.size(); ++i)
    EXPECT_EQ(dense.activations->load(i, 0)->rows, tokens) << inputs[i].weights[0];
}

TEST(Recording, ExpertsShareWhatComesInAndHaveTheirOwnMiddle) {
  const Recorded mixture = record(test::tiny_moe(), 1 << 30, 2);
  const io::Activations& activations = *mixture.activations;
  const std::string experts = "model.layers.1.mlp.switch_mlp.";
  const auto up = activations.find(experts + "up_proj.weight");
  const auto down = activations.find(experts + "down_proj.weight");
  ASSERT_TRUE(up && down);
  EXPECT_EQ(activations.find(experts + "gate_proj.weight"), up);
  EXPECT_EQ(activations.manifest().inputs[*up].experts, 1u);
  EXPECT_EQ(activations.manifest().inputs[*down].experts, 4u);
  EXPECT_FALSE(activations.find("model.layers.1.mlp.gate.weight"));
  const uint64_t tokens = activations.manifest().tokens;
  EXPECT_EQ(activations.load(*up, 0)->rows, tokens);
  uint64_t rows = 0;
  for (uint64_t expert = 0; expert < 4; ++expert) rows += activations.load(*down, expert)->rows;
  EXPECT_EQ(rows % tokens, 0u);  // every token goes to as many
  EXPECT_GT(rows, 0u);
}

TEST(Recording, DoesNotDependOnMemoryThreadsAndChunks) {
  for (const test::ModelBuilder& model : {test::tiny_llama(), test::tiny_moe()}) {
    const Recorded first = record(model, 1 << 30, 1);
    EXPECT_EQ(first.passes, 1u);
    const Recorded second = record(model, 1, 3, 7);
    EXPECT_EQ(second.passes, first.activations->manifest().inputs.size());
    EXPECT_EQ(second.activations->digest(), first.activations->digest());
    EXPECT_GT(record(model, 100'000, 2).passes, 1u);
  }
}

}  // namespace
}  // namespace sluice::evaluate
