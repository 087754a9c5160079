// Engines over models in memory, for tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "runtime/engine.h"
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

inline EngineOptions f32_options() {
  return {.context = 256,
          .kv = KvType::kF32,
          .activations = ActivationChoice::kF32,
          .simd = test::widest_simd()};
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
