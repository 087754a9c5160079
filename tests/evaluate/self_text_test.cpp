// Text that a model writes by itself: the same however many sequences are written together, cut to
// the tokens that were asked for, ended where the model ends it.
#include "evaluate/self_text.h"

#include <gtest/gtest.h>

#include "runtime/engines.h"

namespace sluice::evaluate {
namespace {

using runtime::Opened;

Opened open_model(size_t sessions, const Json& more = Json::object()) {
  test::ModelBuilder builder = test::tiny_llama();
  builder.config().update(more);
  runtime::EngineOptions options = runtime::f32_options();
  options.sessions_max = sessions;
  return runtime::open_engine(builder.build(), options);
}

std::vector<Window> write(runtime::Engine& engine, SelfTextOptions options) {
  NullProgress progress;
  options.simd = test::widest_simd();
  auto windows = generate_self_text(engine, options, progress, nullptr);
  EXPECT_TRUE(windows.has_value()) << windows.error().message;
  return std::move(*windows);
}

std::vector<std::vector<uint32_t>> ids_of(const std::vector<Window>& windows) {
  std::vector<std::vector<uint32_t>> ids;
  for (const Window& window : windows) ids.push_back(window.ids);
  return ids;
}

TEST(SelfText, DoesNotDependOnWhatIsWrittenTogether) {
  std::vector<std::vector<uint32_t>> alone;
  for (const size_t sessions : {1, 2, 5}) {
    const Opened model = open_model(sessions);
    const auto windows =
        write(*model.engine, {.tokens = 200, .window_tokens = 40, .sessions = sessions});
    if (alone.empty()) alone = ids_of(windows);
    EXPECT_EQ(ids_of(windows), alone) << sessions;
  }
}

TEST(SelfText, DrawsWhatWasAskedForFromTheStartOfTexts) {
  const Opened model = open_model(3, {{"bos_token_id", 7u}, {"eos_token_id", 9u}});
  const auto windows = write(*model.engine, {.tokens = 101, .window_tokens = 32, .sessions = 3});
  size_t drawn = 0;
  for (const Window& window : windows) {
    EXPECT_EQ(window.ids.front(), 7u);
    EXPECT_EQ(window.first_scored, 1u);
    EXPECT_LE(window.ids.size(), 32u);
    drawn += window.ids.size() - 1;
    // An end ends it, and does not come before there is something to measure on.
    const auto end = std::ranges::find(window.ids, 9u);
    if (end == window.ids.end()) continue;
    EXPECT_EQ(end + 1, window.ids.end());
    EXPECT_GT(end - window.ids.begin(), static_cast<ptrdiff_t>(kSelfTextTokensMin));
  }
  EXPECT_EQ(drawn, 101u);
}

TEST(SelfText, WithoutBosItBeginsWithAnEnd) {
  const Opened model = open_model(1, {{"bos_token_id", nullptr}, {"eos_token_id", 9u}});
  const auto windows = write(*model.engine, {.tokens = 20, .window_tokens = 32, .sessions = 1});
  EXPECT_EQ(windows.front().ids.front(), 9u);
}

TEST(SelfText, SeedsAndSequencesDiffer) {
  const Opened model = open_model(2);
  const SelfTextOptions options{.tokens = 120, .window_tokens = 40, .sessions = 2};
  const auto first = write(*model.engine, options);
  SelfTextOptions other = options;
  other.seed = 2;
  EXPECT_NE(ids_of(first), ids_of(write(*model.engine, other)));
  EXPECT_EQ(ids_of(first), ids_of(write(*model.engine, options)));
  EXPECT_NE(first[0].ids, first[1].ids);
}

TEST(SelfText, StopsWhenCancelled) {
  const Opened model = open_model(1);
  NullProgress progress;
  CancelToken cancel;
  cancel.cancel();
  const auto windows = generate_self_text(
      *model.engine, {.sessions = 1, .simd = test::widest_simd()}, progress, &cancel);
  ASSERT_FALSE(windows.has_value());
  EXPECT_EQ(windows.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace sluice::evaluate
