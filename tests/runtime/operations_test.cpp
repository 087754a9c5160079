// Single operations of the CPU back-end against the scalar one, on every instruction set: those of
// which the models of reference_test.cpp use one setting only.
#include <gmock/gmock.h>

#include <functional>

#include "runtime/cpu_backend.h"
#include "runtime/engines.h"
#include "runtime/scalar_backend.h"

namespace sluice::runtime {
namespace {

using model::Activation;
using model::ActivationRule;
using model::Choice;
using model::ExpertGroup;
using model::ExpertPlan;
using model::RouterRule;
using model::RouterScore;
using model::Tensor;
using model::Weight;

constexpr size_t kRows = 6;  // more than stay on the calling thread
constexpr double kRelativeError = 2e-6;

// A back-end's tensors, filled with random numbers that are the same in every back-end.
struct Tensors {
  model::Backend& backend;
  std::vector<Tensor> all;
  Weight weight(std::string_view name) const {
    return backend.weight(fmt::format("{}.weight", name));
  }
  Tensor operator[](size_t i) const { return all[i]; }
};

// Tensor i has columns[i] columns. What body returns in the scalar back-end, and in the CPU's for
// each instruction set.
template <class Result>
void run(const std::vector<size_t>& columns, const std::function<Result(Tensors&)>& body,
         Result& expected, std::vector<std::pair<SimdLevel, Result>>& found) {
  test::ModelBuilder builder(Json::object());
  test::Random random(7);
  const auto add = [&](const std::string& name, numerics::Shape shape) {
    uint64_t count = 1;
    for (const uint64_t length : shape) count *= length;
    builder.add(name, numerics::DType::kF32, shape, random.normals(count, 1.5f));
  };
  for (size_t i = 0; i < columns.size(); ++i) add(fmt::format("t{}", i), {kRows, columns[i]});
  add("scale", {columns[0]});
  add("bias", {columns[0]});
  const auto checkpoint = builder.build();
  auto weights = WeightStore::plan(checkpoint, test::plain_map(*checkpoint, numerics::DType::kF32));
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  ThreadPool pool(2);
  NullProgress progress;
  ASSERT_TRUE((*weights)->load(pool, progress).has_value());

  const std::vector<uint32_t> tokens = {0, 1, 2, 3, 4, 5};
  const auto fill = [&](model::Backend& backend, Tensors& tensors) {
    for (size_t i = 0; i < columns.size(); ++i)
      backend.embed(tensors.weight(fmt::format("t{}", i)), tokens, tensors[i]);
  };
  ScalarBackend scalar(**weights);
  Tensors reference{scalar, {}};
  for (const size_t count : columns) reference.all.push_back(scalar.tensor(count, 1));
  fill(scalar, reference);
  expected = body(reference);
  for (const SimdLevel level : test::simd_levels()) {
    CpuBackend cpu(**weights, level, ActivationChoice::kF32, pool);
    Tensors tensors{cpu, {}};
    for (const size_t count : columns) tensors.all.push_back(cpu.tensor(count, 1));
    cpu.allocate({.rows = kRows,
                  .logits_rows = 1,
                  .context = kRows,
                  .heads = 1,
                  .kv = {KvType::kF32, {{1, 16, 16}}}});
    cpu.begin({.tokens = tokens, .segments = {}}, {});
    fill(cpu, tensors);
    found.emplace_back(level, body(tensors));
  }
}

void check_values(const std::vector<size_t>& columns, const std::function<Tensor(Tensors&)>& body) {
  const std::function<Logits(Tensors&)> values = [&](Tensors& tensors) {
    const auto out = tensors.backend.read(body(tensors));
    return Logits(out.begin(), out.end());
  };
  Logits expected;
  std::vector<std::pair<SimdLevel, Logits>> found;
  run(columns, values, expected, found);
  double largest = 0;
  for (const float value : expected) largest = std::max<double>(largest, std::abs(value));
  EXPECT_GT(largest, 0);
  for (const auto& [level, logits] : found) {
    SCOPED_TRACE(simd_level_name(level));
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i)
      EXPECT_NEAR(logits[i], expected[i], kRelativeError * largest) << i;
  }
}

TEST(Operations, Activations) {
  for (const ActivationRule& rule :
       {ActivationRule{.kind = Activation::kSilu}, ActivationRule{.kind = Activation::kGeluTanh},
        ActivationRule{Activation::kClampedSwiglu, 1.702f, 2.0f},
        ActivationRule{.kind = Activation::kRelu2}}) {
    check_values({40, 40}, [&](Tensors& t) {
      t.backend.activate(rule, t[0], t[1]);
      return t[0];
    });
    // The slots of one group alone.
    check_values({40, 40}, [&](Tensors& t) {
      const ExpertGroup groups[] = {{.expert = 1, .first_slot = 0, .slots = kRows}};
      t.backend.activate_slots(rule, t[0], t[1], groups);
      return t[0];
    });
  }
}

TEST(Operations, Scales) {
  check_values({40}, [](Tensors& t) {
    t.backend.scale(t[0], 0.37f);
    return t[0];
  });
  check_values({40, 40}, [](Tensors& t) {
    t.backend.scale_add(t[0], 0.22f, t[1]);
    return t[0];
  });
}

// By a factor for every column; the models' tests have those of one.
TEST(Operations, FactorsOfColumns) {
  check_values({40}, [](Tensors& t) {
    t.backend.multiply(t[0], t.weight("scale"));
    return t[0];
  });
}

TEST(Operations, SoftCap) {
  check_values({40}, [](Tensors& t) {
    t.backend.softcap(t[0], 1.3f);
    return t[0];
  });
}

// Positions on both sides of where the factor grows.
TEST(Operations, ScalesByPosition) {
  check_values({40}, [](Tensors& t) {
    const model::Segment segments[] = {{.first_row = 0, .rows = 4, .first_position = 6},
                                       {.first_row = 4, .rows = 2, .first_position = 8191}};
    t.backend.scale_by_position(t[0], {.factor = 0.1f, .interval = 8},
                                {.tokens = {}, .segments = segments});
    return t[0];
  });
}

TEST(Operations, NormsOfWeightsLessOne) {
  check_values({40, 40}, [](Tensors& t) {
    t.backend.rms_norm(t[0], t.backend.weight_plus_one("scale.weight"), 1e-3f, t[1]);
    return t[1];
  });
}

TEST(Operations, NormsOfHeads) {
  check_values({40}, [](Tensors& t) {
    t.backend.rms_norm_heads(t[0], 5, Weight::kNone, 1e-3f);
    return t[0];
  });
}

// Two choices for each of three rows.
TEST(Operations, InputsOfExpertsAreScaled) {
  check_values({40, 40}, [](Tensors& t) {
    const ExpertPlan plan{.rows = 3,
                          .top_k = 2,
                          .groups = {},
                          .slot_row = {1, 0, 2, 0, 1, 2},
                          .choice_slot = {3, 1, 0, 4, 2, 5},
                          .choice_weight = {0.5f, 0.25f, 1.5f, 2, 0.125f, 3}};
    t.backend.scale_slots(t[0], plan, t[1]);
    return t[1];
  });
}

TEST(Operations, LayerNorm) {
  for (const bool biased : {false, true})
    check_values({40, 40}, [&](Tensors& t) {
      const Weight bias = biased ? t.weight("bias") : Weight::kNone;
      t.backend.layer_norm(t[0], t.weight("scale"), bias, 1e-3f, t[1]);
      return t[1];
    });
}

TEST(Operations, SigmoidGates) {
  for (const size_t columns : {size_t{1}, size_t{40}})
    check_values({columns, 40}, [](Tensors& t) {
      t.backend.sigmoid_mul(t[0], t[1]);
      return t[1];
    });
}

TEST(Operations, Columns) {
  check_values({48, 16}, [](Tensors& t) {
    t.backend.take_columns(t[0], 1, 20, t[1]);
    return t[1];
  });
  check_values({48, 24}, [](Tensors& t) {  // the second half of each of four parts
    t.backend.take_columns(t[0], 4, 6, t[1]);
    return t[1];
  });
}

using Choices = std::vector<Choice>;

void check_router(const RouterRule& rule, bool corrected = false) {
  const std::function<Choices(Tensors&)> choose = [&](Tensors& t) {
    RouterRule with = rule;
    if (corrected) with.correction = t.weight("bias");
    const auto choices = t.backend.route(t[0], with);
    return Choices(choices.begin(), choices.end());
  };
  Choices expected;
  std::vector<std::pair<SimdLevel, Choices>> found;
  run({rule.experts}, choose, expected, found);
  ASSERT_EQ(expected.size(), kRows * rule.top_k);
  for (const auto& [level, choices] : found) {
    SCOPED_TRACE(simd_level_name(level));
    ASSERT_EQ(choices.size(), expected.size());
    for (size_t i = 0; i < choices.size(); ++i) {
      EXPECT_EQ(choices[i].expert, expected[i].expert) << i;
      EXPECT_NEAR(choices[i].weight, expected[i].weight, 1e-6) << i;
    }
  }
}

TEST(Operations, RoutersBySoftmax) {
  for (const bool renormalize : {false, true})
    check_router({.experts = 12, .top_k = 3, .renormalize = renormalize, .scale = 1.5f});
  check_router({.experts = 12, .top_k = 3, .groups = 4, .groups_kept = 2, .group_best = 1});
  check_router({.experts = 12, .top_k = 3, .score = RouterScore::kSoftmaxOfChosen});
}

TEST(Operations, RoutersBySigmoid) {
  for (const bool corrected : {false, true}) {
    check_router({.experts = 12, .top_k = 3, .score = RouterScore::kSigmoid}, corrected);
    check_router({.experts = 12,
                  .top_k = 4,
                  .score = RouterScore::kSigmoid,
                  .renormalize = true,
                  .scale = 2.5f,
                  .groups = 4,
                  .groups_kept = 2},
                 corrected);
    // Each expert a group.
    check_router(
        {.experts = 12, .top_k = 3, .score = RouterScore::kSigmoid, .groups = 12, .groups_kept = 3},
        corrected);
  }
}

// A wide band, so that several experts are near, and a narrow one.
TEST(Operations, SparseMixer) {
  for (const float jitter : {0.01f, 0.3f})
    check_router({.experts = 12, .top_k = 2, .score = RouterScore::kSparseMixer, .jitter = jitter});
}

}  // namespace
}  // namespace sluice::runtime
