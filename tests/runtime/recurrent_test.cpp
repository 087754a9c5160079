// Models with a recurrent state: whatever a session has been through, it goes on as a fresh one
// over the same tokens would, bit for bit.
#include <gmock/gmock.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/engines.h"
#include "runtime/recurrent_state.h"
#include "support/seed.h"

namespace sluice::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kVocabulary = 64;

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Tokens prefix(const Tokens& tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(count)};
}

// ---- which states are kept ----

std::shared_ptr<StatePool> small_pool(size_t slots) {
  auto pool = StatePool::make(
      {{.layers = 1, .past = 3, .columns = 8, .heads = 1, .key_dim = 2, .value_dim = 4}}, slots);
  SLUICE_CHECK(pool.has_value());
  return *pool;
}

void step(StateSequence& states, size_t count, size_t certain = 0, bool prompt = false) {
  ASSERT_TRUE(states.begin(count, certain, prompt).has_value());
  size_t rows = 0;
  for (const StatePiece& piece : states.step().pieces) rows += piece.rows;
  EXPECT_EQ(rows, count);
  states.commit();
}

TEST(RecurrentState, KeepsWhatIsLikelyToBeGoneBackTo) {
  const auto pool = small_pool(kStatesOfSession);
  StateSequence states(pool);
  step(states, 100, 99, true);  // a prompt; its last token's logits are wanted
  EXPECT_THAT(states.positions(), ElementsAre(64, 99, 100));
  for (int i = 0; i < 30; ++i) step(states, 1);
  EXPECT_THAT(states.positions(), ElementsAre(99, 128, 129, 130));
  step(states, 9);  // guesses
  EXPECT_THAT(states.positions(), ElementsAre(99, 128, 130, 139));
  EXPECT_EQ(states.rewind(134), 130u);
  step(states, 4 + 6, 4);  // those that were right again, and other guesses
  EXPECT_THAT(states.positions(), ElementsAre(99, 128, 134, 140));
  EXPECT_EQ(states.rewind(133), 128u);
  EXPECT_EQ(states.rewind(100), 99u);
  EXPECT_EQ(states.rewind(98), 0u);
  EXPECT_THAT(states.positions(), ElementsAre(0));
  EXPECT_EQ(pool->free_slots(), kStatesOfSession);
}

TEST(RecurrentState, TakesNoMoreSlotsThanSaid) {
  const auto pool = small_pool(kStatesOfSession);
  StateSequence states(pool);
  test::Random random(test::seed(5));
  for (int i = 0; i < 2000; ++i) {
    const size_t count = 1 + random.below(random.below(4) == 0 ? 200 : 6);
    ASSERT_TRUE(states.begin(count, random.below(count + 1), random.below(2) == 0).has_value());
    size_t rows = 0;
    for (const StatePiece& piece : states.step().pieces) rows += piece.rows;
    ASSERT_EQ(rows, count);
    if (random.below(5) == 0)
      states.abandon();
    else
      states.commit();
    if (random.below(5) == 0) {
      const size_t count_kept = states.position() - random.below(states.position() + 1) / 4;
      ASSERT_LE(states.rewind(count_kept), count_kept);
    }
  }
}

TEST(RecurrentState, AFullPoolGivesUpWhatIsKeptAndThenRefuses) {
  const auto pool = small_pool(3);
  StateSequence states(pool);
  step(states, 70, 69, true);
  EXPECT_EQ(pool->free_slots(), 0u);  // 64, 69, 70
  step(states, 1);
  EXPECT_THAT(states.positions(), ElementsAre(69, 70, 71));
  const StateSequence fork = states.fork();
  const Status refused = states.begin(1, 0, false);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_EQ(states.position(), 71u);
}

// ---- sessions ----

class RecurrentSession : public testing::TestWithParam<const char*> {
 protected:
  RecurrentSession() : checkpoint_(test::tiny_hybrid(GetParam(), {.layers = 4}).build()) {
    opened_ = open_engine(checkpoint_, options());
    folder_ = std::filesystem::temp_directory_path() / fmt::format("sluice-recurrent-{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  ~RecurrentSession() override { std::filesystem::remove_all(folder_); }

  static EngineOptions options() {
    EngineOptions options = f32_options();
    options.kv = on_processor() ? KvType::kF16 : KvType::kF32;
    options.activations = any_activations();
    options.sessions_max = 4;
    options.context = 320;
    return options;
  }
  Engine& engine() { return *opened_.engine; }
  static Logits run(Session& session, const Tokens& tokens) {
    const auto logits = session.append(tokens);
    if (!logits) ADD_FAILURE() << logits.error().message;
    return logits ? Logits(logits->begin(), logits->end()) : Logits();
  }
  Logits fresh(const Tokens& tokens) {
    Session session = engine().new_session();
    return run(session, tokens);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::shared_ptr<const io::Checkpoint> checkpoint_;
  Opened opened_;
  std::filesystem::path folder_;
};

TEST_P(RecurrentSession, ChunksThreadsAndCompanyChangeNothing) {
  const Tokens tokens = random_tokens(150, kVocabulary, 1),
               other = random_tokens(90, kVocabulary, 2);
  Session whole = engine().new_session();
  const Logits expected = all_logits(engine(), whole, tokens);
  for (const size_t chunk : {1, 7, 64, 65}) {
    for (const size_t threads : {1, 3}) {
      EngineOptions chunked = options();
      chunked.chunk_tokens = chunk;
      const Opened opened = open_engine(checkpoint_, chunked, threads);
      Session session = opened.engine->new_session(), beside = opened.engine->new_session();
      Logits found;
      const Feed feeds[] = {{.session = &beside, .tokens = other, .logits_count = 1},
                            {.session = &session, .tokens = tokens, .logits_count = tokens.size()}};
      const Status status =
          opened.engine->step(feeds, [&](size_t feed, size_t, std::span<const float> logits) {
            if (feed == 1) found.insert(found.end(), logits.begin(), logits.end());
          });
      ASSERT_TRUE(status.has_value()) << status.error().message;
      SCOPED_TRACE(fmt::format("{}, {}", chunk, threads));
      expect_same(found, expected);
    }
  }
}

TEST_P(RecurrentSession, RewindsToAnyPlace) {
  const Tokens tokens = random_tokens(140, kVocabulary, 1),
               other = random_tokens(20, kVocabulary, 2);
  for (const size_t place : {0, 1, 63, 64, 65, 100, 127, 128, 129, 139, 140}) {
    Session session = engine().new_session();
    run(session, prefix(tokens, 70));
    run(session, Tokens(tokens.begin() + 70, tokens.end()));
    session.rewind(place);
    EXPECT_EQ(session.size(), place);
    expect_same(run(session, other), fresh(joined(prefix(tokens, place), other)));
  }
}

TEST_P(RecurrentSession, ForksShareUntilTheyWrite) {
  const Tokens first = random_tokens(100, kVocabulary, 1);
  const Tokens a = random_tokens(40, kVocabulary, 2), b = random_tokens(40, kVocabulary, 3);
  Session session = engine().new_session();
  run(session, first);
  session.rewind(90);  // a fork takes over what has to be run again
  Session fork = session.fork();
  const Tokens kept = prefix(first, 90);
  expect_same(run(session, a), fresh(joined(kept, a)));
  expect_same(run(fork, b), fresh(joined(kept, b)));
  fork.rewind(50);
  expect_same(run(fork, a), fresh(joined(prefix(first, 50), a)));
  expect_same(run(session, b), fresh(joined(joined(kept, a), b)));
}

TEST_P(RecurrentSession, BecomesAndShifts) {
  const Tokens first = random_tokens(90, kVocabulary, 1);
  Tokens other = first;
  other[75] ^= 1;
  Session session = engine().new_session();
  run(session, first);
  for (const Tokens& goal : {other, prefix(other, 30), first, first}) {
    const auto logits = session.become(goal);
    ASSERT_TRUE(logits.has_value());
    expect_same(Logits(logits->begin(), logits->end()), fresh(goal));
  }
  while (session.size() < engine().info().context) run(session, {3});
  const auto dropped = session.shift(8);
  ASSERT_TRUE(dropped.has_value());
  EXPECT_GT(*dropped, 0u);
  const Tokens left = session.tokens();
  expect_same(run(session, {5}), fresh(joined(left, {5})));
}

// Guesses of every length, some of them right: what `--lookup` does.
TEST_P(RecurrentSession, GuessesTakenBackLeaveNoTrace) {
  const Tokens text = random_tokens(160, kVocabulary, 1);
  Session plain = engine().new_session();
  const Logits expected = all_logits(engine(), plain, text);
  test::Random random(test::seed(9));
  Session session = engine().new_session();
  run(session, prefix(text, 40));
  const uint64_t vocabulary = engine().info().vocabulary;
  while (session.size() + 10 < text.size()) {
    const size_t at = session.size(), right = random.below(8), wrong = random.below(3);
    Tokens guesses(text.begin() + static_cast<ptrdiff_t>(at),
                   text.begin() + static_cast<ptrdiff_t>(at + 1 + right));
    for (size_t i = 0; i < wrong; ++i)
      guesses.push_back(static_cast<uint32_t>(random.below(kVocabulary)));
    const Feed feed{.session = &session, .tokens = guesses, .logits_count = guesses.size()};
    const Status status = engine().step(
        std::span(&feed, 1), [&](size_t, size_t token, std::span<const float> logits) {
          if (token > right) return;
          const auto row = std::span(expected).subspan((at + token) * vocabulary, vocabulary);
          SCOPED_TRACE(at + token);
          expect_same({logits.begin(), logits.end()}, {row.begin(), row.end()});
        });
    ASSERT_TRUE(status.has_value()) << status.error().message;
    session.rewind(at + 1 + right);
  }
}

TEST_P(RecurrentSession, FilesContinueExactly) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  const Tokens tokens = random_tokens(100, kVocabulary, 1),
               more = random_tokens(30, kVocabulary, 2);
  for (const size_t left : {100, 80, 0}) {  // with all states, some to be run again, none
    Session session = engine().new_session();
    run(session, tokens);
    session.rewind(left);
    ASSERT_TRUE(session.save(path("session")).has_value());
    Session loaded = engine().new_session();
    run(loaded, more);
    const Status status = loaded.load(path("session"));
    ASSERT_TRUE(status.has_value()) << status.error().message;
    EXPECT_EQ(loaded.tokens(), prefix(tokens, left));
    expect_same(run(loaded, more), fresh(joined(prefix(tokens, left), more)));
    loaded.rewind(left / 2);
    expect_same(run(loaded, more), fresh(joined(prefix(tokens, left / 2), more)));
  }
}

TEST_P(RecurrentSession, DamagedFilesAreRefused) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  Session session = engine().new_session();
  run(session, random_tokens(10, kVocabulary, 1));
  ASSERT_TRUE(session.save(path("session")).has_value());
  std::ifstream in(path("session"), std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(whole[8], 2);  // the version that has a state
  const auto refused = [&](std::string bytes) {
    std::ofstream(path("damaged"), std::ios::binary) << bytes;
    Session other = engine().new_session();
    const Status status = other.load(path("damaged"));
    EXPECT_FALSE(status.has_value());
    return status ? "" : status.error().message;
  };
  std::string state = whole;
  state[whole.size() - 100] ^= 1;  // in the state
  EXPECT_THAT(refused(state), HasSubstr("its digest does not fit"));
  EXPECT_THAT(refused(whole.substr(0, whole.size() - 64)), HasSubstr("do not fit a session"));
  std::string version = whole;
  version[8] = 3;
  EXPECT_THAT(refused(version), HasSubstr("of version 3 are not known, only 2"));
  std::string position = whole;
  const size_t at = whole.find("\"position\":10");
  ASSERT_NE(at, std::string::npos);
  position.replace(at, 13, "\"position\":11");
  EXPECT_THAT(refused(position), HasSubstr("position"));
}

// A step that fails leaves the state before it.
TEST_P(RecurrentSession, CancelledStepsLeaveWhatWasDone) {
  EngineOptions chunked = options();
  chunked.chunk_tokens = 16;
  const Opened opened = open_engine(checkpoint_, chunked);
  const Tokens tokens = random_tokens(100, kVocabulary, 1);
  Session session = opened.engine->new_session();
  CancelToken cancel;
  const Feed feed{.session = &session, .tokens = tokens, .logits_count = tokens.size()};
  const Status status = opened.engine->step(
      std::span(&feed, 1),
      [&](size_t, size_t token, std::span<const float>) {
        if (token == 40) cancel.cancel();
      },
      &cancel);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(session.size(), 48u);
  EXPECT_EQ(run(session, Tokens(tokens.begin() + 48, tokens.end())), fresh(tokens));
}

TEST_P(RecurrentSession, StreamedWeightsGiveTheSameBits) {
  const Tokens tokens = random_tokens(70, kVocabulary, 1);
  Session session = engine().new_session();
  const Logits expected = all_logits(engine(), session, tokens);
  bool streamed = false;
  for (uint64_t bytes = 40'000; bytes < 800'000; bytes += 40'000) {
    EngineOptions small = options();
    small.weight_bytes_max = bytes;
    small.window_bytes = 4096;
    const auto opened = try_open(checkpoint_, small);
    if (!opened) continue;
    Session other = opened->engine->new_session();
    EXPECT_EQ(all_logits(*opened->engine, other, tokens), expected) << bytes;
    streamed |= opened->engine->statistics().bytes_read > 0;
  }
  EXPECT_TRUE(streamed);
}

TEST_P(RecurrentSession, MemoryIsCounted) {
  const ModelInfo& info = engine().info();
  // Two linear layers: 3 rows of 2·48 + 160 channels, and 4 heads of two tiles [24, 32].
  EXPECT_EQ(info.state_bytes, 2u * 4 * (3 * 256 + 4 * 2 * 24 * 32));
  EXPECT_EQ(engine().memory().states, 4 * kStatesOfSession * info.state_bytes);
  EXPECT_GE(engine().memory().total(), engine().memory().states + engine().memory().weights);
  // Only the layers that attend have keys and values.
  EXPECT_EQ(info.kv_bytes_token, 2u * 2 * 2 * 32 * (on_processor() ? 2 : 4));
}

INSTANTIATE_TEST_SUITE_P(Families, RecurrentSession,
                         testing::Values("qwen3_next", "qwen3_5", "qwen3_5_moe", "nemotron_h"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace sluice::runtime
