// Steps: results do not depend on what is computed together; every refusal.
#include "runtime/engine.h"

#include <gmock/gmock.h>

#include "base/machine.h"
#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

using testing::HasSubstr;

constexpr uint64_t kVocabulary = 64;

// Logits of 90 tokens, computed in chunks of that many, on that many threads.
Logits chunked(const std::shared_ptr<const io::Checkpoint>& checkpoint, size_t chunk,
               size_t threads, KvType kv) {
  EngineOptions options = f32_options();
  options.activations = any_activations();
  options.chunk_tokens = chunk;
  options.kv = kv;
  const Opened opened = open_engine(checkpoint, options, threads);
  Session session = opened.engine->new_session();
  return all_logits(*opened.engine, session, random_tokens(90, kVocabulary, 1));
}

TEST(Engine, ChunksAndThreadsDoNotMatter) {
  for (const auto& checkpoint :
       that_run({test::tiny_llama().build(), test::tiny_moe().build(), test::tiny_latent().build(),
                 test::tiny_latent({}, "deepseek_v2").build(),
                 test::tiny_latent({}, "deepseek_v32").build(), test::tiny_gguf().build()}))
    for (const KvType kv : kv_types()) {
      SCOPED_TRACE(kv_type_name(kv));
      const Logits expected = chunked(checkpoint, 512, 1, kv);
      for (const size_t chunk : {1, 7, 64}) {
        SCOPED_TRACE(chunk);
        expect_same(chunked(checkpoint, chunk, 2, kv), expected);
      }
      EXPECT_EQ(chunked(checkpoint, 512, 3, kv), expected);
    }
}

TEST(Engine, BatchDoesNotMatter) {
  for (const auto& checkpoint :
       {test::tiny_llama().build(), test::tiny_moe().build(), test::tiny_latent().build(),
        test::tiny_latent({}, "deepseek_v32").build()}) {
    EngineOptions options = f32_options();
    options.sessions_max = 6;
    options.chunk_tokens = 13;
    const Opened opened = open_engine(checkpoint, options);
    std::vector<Session> sessions;
    std::vector<Tokens> tokens;
    std::vector<Logits> found(5);
    std::vector<Feed> feeds;
    for (size_t i = 0; i < 5; ++i) {
      sessions.push_back(opened.engine->new_session());
      tokens.push_back(random_tokens(3 + 9 * i, kVocabulary, i));
    }
    for (size_t i = 0; i < 5; ++i)
      feeds.push_back({.session = &sessions[i], .tokens = tokens[i], .logits_count = i});
    const Status status =
        opened.engine->step(feeds, [&](size_t feed, size_t, std::span<const float> logits) {
          found[feed].insert(found[feed].end(), logits.begin(), logits.end());
        });
    ASSERT_TRUE(status.has_value()) << status.error().message;
    for (size_t i = 0; i < 5; ++i) {
      Session alone = opened.engine->new_session();
      const Logits all = all_logits(*opened.engine, alone, tokens[i]);
      expect_same(found[i], Logits(all.end() - static_cast<ptrdiff_t>(i * kVocabulary), all.end()));
      EXPECT_EQ(sessions[i].tokens(), tokens[i]);
    }
  }
}

// States of every token, in chunks and beside a feed that wants logits.
TEST(Engine, StatesAreHandedOutLikeLogits) {
  for (const auto& checkpoint : {test::tiny_llama().build(), test::tiny_moe().build()}) {
    const Tokens tokens = random_tokens(40, kVocabulary, 7);
    std::vector<Logits> found;
    for (const size_t chunk : {64, 7}) {
      EngineOptions options = f32_options();
      options.sessions_max = 2;
      options.chunk_tokens = chunk;
      options.logits_rows = 3;
      const Opened opened = open_engine(checkpoint, options);
      const size_t columns = opened.engine->info().hidden_size;
      Session session = opened.engine->new_session(), other = opened.engine->new_session();
      const Feed feeds[] = {
          {.session = &other, .tokens = tokens, .logits_count = 2},
          {.session = &session, .tokens = tokens, .logits_count = 40, .states = true}};
      Logits states, logits;
      const Status status =
          opened.engine->step(feeds, [&](size_t feed, size_t token, std::span<const float> row) {
            Logits& rows = feed == 1 ? states : logits;
            ASSERT_EQ(row.size(), feed == 1 ? columns : kVocabulary);
            if (feed == 1) {
              ASSERT_EQ(token * columns, states.size());
            }
            rows.insert(rows.end(), row.begin(), row.end());
          });
      ASSERT_TRUE(status.has_value()) << status.error().message;
      ASSERT_EQ(states.size(), 40 * columns);
      Session alone = opened.engine->new_session();
      const Logits all = all_logits(*opened.engine, alone, tokens);
      EXPECT_EQ(logits, Logits(all.end() - ptrdiff_t{2 * kVocabulary}, all.end()));
      found.push_back(states);
    }
    EXPECT_EQ(found[0], found[1]);
  }
}

TEST(Engine, TellsWhatItIs) {
  const Opened opened = open_engine(test::tiny_moe().build(), f32_options());
  const ModelInfo& info = opened.engine->info();
  EXPECT_EQ(info.family, "qwen3_moe");
  EXPECT_EQ(info.storage, "BF16");
  EXPECT_EQ(info.vocabulary, kVocabulary);
  EXPECT_EQ(info.layers, 2u);
  EXPECT_EQ(info.context_model, 4096u);
  EXPECT_EQ(info.context, 256u);
  EXPECT_EQ(info.kv_bytes_token, 2u * 2 * 2 * 32 * 4);
  EXPECT_LT(info.read_bytes_token, info.weight_bytes);
  EXPECT_EQ(opened.engine->memory().kv, 256 * info.kv_bytes_token);
  EXPECT_GE(opened.engine->memory().weights, info.weight_bytes);
  const auto tokenizer = opened.engine->sidecar("tokenizer.json");
  ASSERT_TRUE(tokenizer.has_value());
  EXPECT_THAT(*tokenizer, HasSubstr("vocab"));
  EXPECT_EQ(opened.engine->sidecar("none").error().code, ErrorCode::kNotFound);
}

TEST(Engine, MemoryIsComputedBeforehand) {
  EngineOptions options = f32_options();
  options.memory_bytes_max = 300'000;
  const auto opened = try_open(test::tiny_llama().build(), options);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(opened.error().message, HasSubstr("= weights "));
  EXPECT_THAT(opened.error().message, HasSubstr("allows only 300.0 kB"));
  options = f32_options();
  options.context = size_t{1} << 26;
  options.sessions_max = size_t{1} << 20;
  EXPECT_EQ(try_open(test::tiny_llama().build(), options).error().code, ErrorCode::kExhausted);
}

// Scratch takes what the process leaves, and never more than it takes unbounded.
TEST(Engine, ScratchGivesWay) {
  if (!on_processor()) GTEST_SKIP() << "scratch of the processor";
  ThreadPool pool(2);
  const auto scratch = [&](uint64_t besides, size_t logits_rows) {
    EngineOptions options = f32_options();
    options.context = 1 << 20;
    options.chunk_tokens = 1 << 20;
    options.besides_bytes_max = besides;
    options.logits_rows = logits_rows;
    const auto engine = Engine::plan(test::tiny_llama().build(), options, pool);
    SLUICE_CHECK(engine.has_value());
    return (*engine)->memory().scratch;
  };
  const uint64_t unbounded = scratch(0, 64), least = scratch(1, 64);
  EXPECT_LE(unbounded, kScratchBytes);
  EXPECT_GT(unbounded, kScratchBytes / 2);
  EXPECT_LE(least, kScratchBytesMin);
  EXPECT_GT(least, kScratchBytesMin / 3);
  EXPECT_LE(scratch(resident_bytes() + 2 * kScratchBytesMin, 64), 2 * kScratchBytesMin);
  EXPECT_LE(scratch(1, 1), least);
}

TEST(Engine, IsPlannedBeforeItIsLoaded) {
  ThreadPool pool(2);
  NullLog log;
  NullProgress progress;
  const auto engine = Engine::plan(test::tiny_llama().build(), f32_options(), pool);
  ASSERT_TRUE(engine.has_value());
  EXPECT_TRUE((*engine)->sidecar("tokenizer.json").has_value());
  const MemoryNeed planned = (*engine)->memory();
  ASSERT_TRUE((*engine)->load(log, progress).has_value());
  EXPECT_EQ((*engine)->memory().weights, planned.weights);
  EXPECT_EQ((*engine)->memory().kv, planned.kv);
  Session session = (*engine)->new_session();
  EXPECT_TRUE(session.append(Tokens{1, 2, 3}).has_value());
}

// Sums too large for a float, from weights that are all finite.
TEST(Engine, NamesTheLayerOfOverflow) {
  test::ModelBuilder model = test::tiny_llama({.dtype = numerics::DType::kF32});
  std::vector<std::byte>& bytes = model.bytes("model.layers.1.mlp.up_proj.weight");
  const float huge = 1e38F;
  for (size_t at = 0; at < bytes.size(); at += sizeof huge)
    std::memcpy(bytes.data() + at, &huge, sizeof huge);
  const Opened opened = open_engine(model.build(), f32_options());
  Session session = opened.engine->new_session();
  const auto logits = session.append(random_tokens(20, kVocabulary, 1));
  ASSERT_FALSE(logits.has_value());
  EXPECT_EQ(logits.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(logits.error().message, HasSubstr("in layer 1 of 2"));
}

TEST(Engine, RefusesTokensItCannotRun) {
  EngineOptions options = f32_options();
  options.context = 10;
  const Opened opened = open_engine(test::tiny_llama().build(), options);
  Session session = opened.engine->new_session();
  EXPECT_EQ(session.append({}).error().code, ErrorCode::kInvalidArgument);
  const auto beyond = session.append(Tokens{1, 64});
  ASSERT_FALSE(beyond.has_value());
  EXPECT_THAT(beyond.error().message, HasSubstr("token 64 is beyond"));
  EXPECT_TRUE(session.append(Tokens(10, 1)).has_value());
  const auto full = session.append(Tokens{1});
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(full.error().message, HasSubstr("the context is full"));
  EXPECT_EQ(session.size(), 10u);
}

TEST(Engine, StopsBetweenChunks) {
  EngineOptions options = f32_options();
  options.chunk_tokens = 4;
  const Opened opened = open_engine(test::tiny_llama().build(), options);
  Session session = opened.engine->new_session();
  CancelToken cancel;
  cancel.cancel();
  EXPECT_EQ(session.append(Tokens(9, 1), &cancel).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(session.size(), 0u);
}

// The layer whose weights are damaged is named, and the session is as it was.
TEST(Engine, NamesTheLayerOfNaNs) {
  test::ModelBuilder model = test::tiny_llama({.dtype = numerics::DType::kF32});
  std::vector<std::byte>& bytes = model.bytes("model.layers.1.mlp.down_proj.weight");
  const float nan = NAN;
  std::memcpy(bytes.data() + 400, &nan, sizeof nan);
  const Opened opened = open_engine(model.build(), f32_options());
  Session session = opened.engine->new_session();
  const auto logits = session.append(Tokens{1, 2, 3});
  ASSERT_FALSE(logits.has_value());
  EXPECT_EQ(logits.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(logits.error().message, HasSubstr("in layer 1 of 2"));
  EXPECT_EQ(session.size(), 0u);
}

TEST(Engine, NamesTheHeadOfNaNs) {
  test::ModelBuilder model = test::tiny_llama({.dtype = numerics::DType::kF32});
  const float nan = NAN;
  std::memcpy(model.bytes("lm_head.weight").data(), &nan, sizeof nan);
  const Opened opened = open_engine(model.build(), f32_options());
  Session session = opened.engine->new_session();
  EXPECT_THAT(session.append(Tokens{1}).error().message, HasSubstr("in the head"));
}

TEST(Engine, RefusesModelsThatContradictThemselves) {
  test::ModelBuilder missing = test::tiny_llama();
  missing.remove("model.layers.1.mlp.up_proj.weight");
  const auto opened = try_open(missing.build(), f32_options());
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(opened.error().message, HasSubstr("model.layers.1.mlp.up_proj.weight"));

  test::ModelBuilder other = test::tiny_llama();
  other.config()["hidden_act"] = "gelu";
  EXPECT_EQ(try_open(other.build(), f32_options()).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sluice::runtime
