// The CPU back-end's logits against the scalar back-end's, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "families/recipe.h"
#include "model/model.h"
#include "runtime/engines.h"
#include "runtime/scalar_backend.h"

namespace sluice::runtime {

// f32 sums over a few hundred terms and some layers, against doubles.
inline constexpr double kRelativeError = 2e-5;

inline Logits reference_logits(const std::shared_ptr<const io::Checkpoint>& checkpoint,
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
  model::Model model(*config, backend, f32_options().context);
  const model::Segment segment{.rows = static_cast<uint32_t>(tokens.size())};
  model.forward({tokens, std::span(&segment, 1)});
  std::vector<uint32_t> rows(tokens.size());
  for (uint32_t i = 0; i < rows.size(); ++i) rows[i] = i;
  const auto logits = model.logits(rows);
  return {logits.begin(), logits.end()};
}

inline void expect_close(const Logits& found, const Logits& expected) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    largest = std::max<double>(largest, std::abs(expected[i]));
    difference = std::max<double>(difference, std::abs(double{found[i]} - expected[i]));
  }
  EXPECT_GT(largest, 0);
  EXPECT_LE(difference, kRelativeError * largest);
}

// Prefill and token by token, on every instruction set.
inline void expect_reference_logits(const std::shared_ptr<const io::Checkpoint>& checkpoint,
                                    size_t count, uint64_t vocabulary,
                                    Compat compat = Compat::kTransformers) {
  if (!runs(checkpoint)) return;
  const Tokens tokens = random_tokens(count, vocabulary, 3);
  const Logits expected = reference_logits(checkpoint, tokens, compat);
  const SimdLevel widest[] = {test::widest_simd()};
  const std::vector<SimdLevel> every = test::simd_levels();
  for (const SimdLevel level : on_processor() ? std::span<const SimdLevel>(every) : widest) {
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

}  // namespace sluice::runtime
