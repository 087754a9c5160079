// Timelines: rewinding, forking, reuse, shifting and files give what a fresh session would.
#include <gmock/gmock.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

using testing::HasSubstr;

constexpr uint64_t kVocabulary = 64;

class SessionTest : public testing::Test {
 protected:
  SessionTest() : SessionTest(on_processor() ? KvType::kF16 : KvType::kF32, test::tiny_llama()) {}
  SessionTest(KvType kv, const test::ModelBuilder& model) {
    EngineOptions options = f32_options();
    options.kv = on_processor() ? kv : KvType::kF32;
    options.sessions_max = 4;
    opened_ = open_engine(model.build(), options);
    folder_ = std::filesystem::temp_directory_path() / fmt::format("sluice-session-{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  ~SessionTest() override { std::filesystem::remove_all(folder_); }

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

  Opened opened_;
  std::filesystem::path folder_;
};

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_F(SessionTest, RewindForgets) {
  const Tokens first = random_tokens(70, kVocabulary, 1), other = random_tokens(20, kVocabulary, 2);
  Session session = engine().new_session();
  run(session, first);
  session.rewind(63);
  expect_same(run(session, other), fresh(joined(Tokens(first.begin(), first.begin() + 63), other)));
}

TEST_F(SessionTest, ForksShareUntilTheyWrite) {
  const Tokens first = random_tokens(100, kVocabulary, 1);
  const Tokens a = random_tokens(40, kVocabulary, 2), b = random_tokens(40, kVocabulary, 3);
  Session session = engine().new_session();
  run(session, first);
  Session fork = session.fork();
  expect_same(run(session, a), fresh(joined(first, a)));
  expect_same(run(fork, b), fresh(joined(first, b)));
  fork.rewind(50);
  expect_same(run(fork, a), fresh(joined(Tokens(first.begin(), first.begin() + 50), a)));
  expect_same(run(session, b), fresh(joined(joined(first, a), b)));
}

TEST_F(SessionTest, BecomeReusesThePrefix) {
  const Tokens first = random_tokens(90, kVocabulary, 1);
  Tokens other = first;
  other[75] ^= 1;
  Session session = engine().new_session();
  run(session, first);
  EXPECT_EQ(session.common_prefix(other), 75u);
  for (const Tokens& goal : {other, Tokens(other.begin(), other.begin() + 30), first, first}) {
    const auto logits = session.become(goal);
    ASSERT_TRUE(logits.has_value());
    EXPECT_EQ(session.tokens(), goal);
    expect_same(Logits(logits->begin(), logits->end()), fresh(goal));
  }
}

TEST_F(SessionTest, ShiftIsTheShortenedText) {
  const Tokens first = random_tokens(256, kVocabulary, 1);
  Session session = engine().new_session();
  run(session, first);
  EXPECT_EQ(session.append(Tokens{1}).error().code, ErrorCode::kExhausted);
  const auto dropped = session.shift(6);
  ASSERT_TRUE(dropped.has_value());
  EXPECT_EQ(*dropped, 125u);
  EXPECT_EQ(*session.shift(6), 0u);
  const Tokens shortened =
      joined(Tokens(first.begin(), first.begin() + 6), Tokens(first.begin() + 131, first.end()));
  EXPECT_EQ(session.tokens(), shortened);
  expect_same(run(session, {5}), fresh(joined(shortened, {5})));
  EXPECT_EQ(session.shift(200, 200).error().code, ErrorCode::kExhausted);
  EXPECT_EQ(*session.shift(0, 256), 132u);
  EXPECT_EQ(session.size(), 0u);
}

TEST_F(SessionTest, BlocksRunOutAndComeBack) {
  std::vector<Session> sessions;
  for (int i = 0; i < 4; ++i) {
    sessions.push_back(engine().new_session());
    run(sessions.back(), random_tokens(256, kVocabulary, 1));
  }
  Session more = engine().new_session();
  const auto refused = more.append(Tokens{1});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("in use"));
  sessions.pop_back();
  run(more, {1, 2, 3});
}

// Keys and values of every kind; of heads that are alike, and of values within keys.
class SessionFileTest : public SessionTest,
                        public testing::WithParamInterface<std::tuple<KvType, bool>> {
 protected:
  SessionFileTest()
      : SessionTest(std::get<0>(GetParam()),
                    std::get<1>(GetParam()) ? test::tiny_latent() : test::tiny_llama()) {}
};

TEST_P(SessionFileTest, ContinuesBitForBit) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  const Tokens first = random_tokens(150, kVocabulary, 1), rest = random_tokens(30, kVocabulary, 2);
  Session session = engine().new_session();
  run(session, first);
  ASSERT_TRUE(session.save(path("a.session")).has_value());
  EXPECT_FALSE(std::filesystem::exists(path("a.session.tmp")));
  Session other = engine().new_session();
  run(other, rest);
  const Status loaded = other.load(path("a.session"));
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(other.tokens(), first);
  EXPECT_EQ(run(other, rest), run(session, rest));
}

INSTANTIATE_TEST_SUITE_P(EveryKind, SessionFileTest,
                         testing::Combine(testing::Values(KvType::kF32, KvType::kF16, KvType::kQ8,
                                                          KvType::kQ4),
                                          testing::Bool()));

TEST_F(SessionTest, ADeviceHasNoFiles) {
  if (on_processor()) GTEST_SKIP() << "the processor has";
  Session session = engine().new_session();
  run(session, {1, 2});
  EXPECT_EQ(session.save(path("a")).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(session.load(path("a")).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(path("a")));
}

// Every byte matters: each one changed, and each length but the right one.
TEST_F(SessionTest, DamageIsRefused) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  Session session = engine().new_session();
  run(session, {1, 2});
  ASSERT_TRUE(session.save(path("good")).has_value());
  std::ifstream in(path("good"), std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  const auto load = [&](std::string_view content) {
    const auto bytes = std::as_bytes(std::span(content));
    return session.load(*io::memory_source("bad", {bytes.begin(), bytes.end()}));
  };
  ASSERT_TRUE(load(good).has_value());
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    const Status changed = load(bad), cut = load(std::string_view(good).substr(0, at));
    ASSERT_FALSE(changed.has_value()) << at;
    ASSERT_FALSE(cut.has_value()) << at;
    EXPECT_THAT(changed.error().message, HasSubstr("bad: "));
    EXPECT_EQ(cut.error().code, ErrorCode::kCorrupt) << at;
    ASSERT_EQ(session.tokens(), (Tokens{1, 2}));
  }
  EXPECT_EQ(load(good + "x").error().code, ErrorCode::kCorrupt);
  std::string version = good;
  version[8] = 2;
  EXPECT_EQ(load(version).error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(load(version).error().message, HasSubstr("version 2"));
  EXPECT_EQ(session.load(path("none")).error().code, ErrorCode::kNotFound);
}

// What a writer with a right digest could still get wrong.
TEST_F(SessionTest, TokensBeyondTheVocabularyAreRefused) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  Session session = engine().new_session();
  run(session, {1, 2});
  ASSERT_TRUE(session.save(path("good")).has_value());
  std::ifstream in(path("good"), std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(in)), {});
  uint32_t header = 0;
  std::memcpy(&header, content.data() + 12, sizeof header);
  content[16 + header] = kVocabulary;
  content.resize(content.size() - 32);
  Hasher hasher;
  hasher.update(content);
  content += hasher.finish().hex();
  const auto bytes = std::as_bytes(std::span(content));
  const Status refused = session.load(*io::memory_source("bad", {bytes.begin(), bytes.end()}));
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message,
              HasSubstr("token 64 is beyond the model's vocabulary of 64"));
  EXPECT_EQ(session.size(), 2u);
}

TEST_F(SessionTest, SmallerContextsAreRefused) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  Session session = engine().new_session();
  run(session, random_tokens(100, kVocabulary, 1));
  ASSERT_TRUE(session.save(path("a")).has_value());
  EngineOptions options = f32_options();
  options.kv = KvType::kF16;
  options.context = 99;
  const Opened small = open_engine(test::tiny_llama().build(), options);
  Session other = small.engine->new_session();
  const Status refused = other.load(path("a"));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message,
              HasSubstr("100 tokens, which do not fit in a context of 99"));
}

TEST_F(SessionTest, OtherModelsAreRefused) {
  if (!on_processor()) GTEST_SKIP() << "files are the processor's";
  Session session = engine().new_session();
  run(session, {1, 2, 3});
  ASSERT_TRUE(session.save(path("a")).has_value());
  test::ModelBuilder changed = test::tiny_llama();
  changed.config()["rms_norm_eps"] = 1e-5;
  const Opened other = open_engine(changed.build(), f32_options());
  Session stranger = other.engine->new_session();
  const Status refused = stranger.load(path("a"));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("another model"));

  const Opened f32 = open_engine(test::tiny_llama().build(), f32_options());
  Session wider = f32.engine->new_session();
  EXPECT_THAT(wider.load(path("a")).error().message, HasSubstr("keys and values"));
}

}  // namespace
}  // namespace sluice::runtime
