// Engines over models in memory, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "runtime/engine.h"
#include "runtime/step_backend.h"
#include "support/models.h"

namespace sluice::runtime {

using Tokens = std::vector<uint32_t>;
using Logits = std::vector<float>;

inline Tokens random_tokens(size_t count, uint64_t vocabulary, uint64_t seed) {
  test::Random random(seed);
  Tokens tokens;
  for (size_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<uint32_t>(random.below(vocabulary)));
  return tokens;
}

// What computes: the processor, unless the test program was linked with tests/gpu/test_device.cpp,
// which runs these tests over another back-end.
inline std::shared_ptr<const Device> test_device;
inline bool on_processor() { return test_device == nullptr; }

inline EngineOptions f32_options() {
  return {.context = 256,
          .kv = KvType::kF32,
          .activations = ActivationChoice::kF32,
          .device = test_device,
          .simd = test::widest_simd()};
}
// The processor's results are the same bits whatever is computed together with a precision that
// follows from the weights; another back-end's are compared in f32.
inline ActivationChoice any_activations() {
  return on_processor() ? ActivationChoice::kAuto : ActivationChoice::kF32;
}
inline std::vector<KvType> kv_types() {
  if (on_processor()) return {KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kQ4};
  return {KvType::kF32};
}
// Whether what computes has products for all of a model's weights; the processor has.
inline bool runs(const std::shared_ptr<const io::Checkpoint>& checkpoint) {
  ThreadPool pool(1);
  const auto engine = Engine::plan(checkpoint, f32_options(), pool);
  return on_processor() || engine || engine.error().code != ErrorCode::kUnsupported;
}
inline std::vector<std::shared_ptr<const io::Checkpoint>> that_run(
    std::vector<std::shared_ptr<const io::Checkpoint>> checkpoints) {
  std::erase_if(checkpoints, [](const auto& checkpoint) { return !runs(checkpoint); });
  SLUICE_CHECK(!checkpoints.empty());
  return checkpoints;
}
// The same bits; on another back-end than the processor's, the same but for rounding in f32.
inline void expect_same(const Logits& found, const Logits& expected) {
  if (on_processor()) {
    EXPECT_EQ(found, expected);
    return;
  }
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    largest = std::max<double>(largest, std::abs(expected[i]));
    difference = std::max<double>(difference, std::abs(double{found[i]} - expected[i]));
  }
  EXPECT_LE(difference, 2e-5 * largest);
}

// A pool and what runs on it.
struct Opened {
  std::unique_ptr<ThreadPool> pool;
  std::shared_ptr<Engine> engine;
};

inline Result<Opened> try_open(std::shared_ptr<const io::Checkpoint> checkpoint,
                               const EngineOptions& options, size_t threads = 2) {
  NullLog log;
  NullProgress progress;
  Opened opened{std::make_unique<ThreadPool>(threads), nullptr};
  SLUICE_ASSIGN(opened.engine,
                Engine::open(std::move(checkpoint), options, *opened.pool, log, progress));
  return opened;
}

inline Opened open_engine(std::shared_ptr<const io::Checkpoint> checkpoint,
                          const EngineOptions& options, size_t threads = 2) {
  auto opened = try_open(std::move(checkpoint), options, threads);
  if (!opened) ADD_FAILURE() << opened.error().message;
  SLUICE_CHECK(opened.has_value());
  return std::move(*opened);
}

// Logits of every token, run behind what the session has.
inline Logits all_logits(Engine& engine, Session& session, const Tokens& tokens) {
  Logits all;
  const Feed feed{.session = &session, .tokens = tokens, .logits_count = tokens.size()};
  const Status status =
      engine.step(std::span(&feed, 1), [&](size_t, size_t token, std::span<const float> logits) {
        EXPECT_EQ(token * logits.size(), all.size());
        all.insert(all.end(), logits.begin(), logits.end());
      });
  EXPECT_TRUE(status.has_value()) << status.error().message;
  return all;
}

}  // namespace sluice::runtime
