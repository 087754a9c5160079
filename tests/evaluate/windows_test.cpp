// Which tokens each protocol scores, and from what.
#include "evaluate/windows.h"

#include <gtest/gtest.h>

#include <numeric>

namespace sluice::evaluate {
namespace {

std::vector<uint32_t> counting(size_t count) {
  std::vector<uint32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 100u);
  return ids;
}

TEST(Windows, LlamaCppScoresSecondHalves) {
  const auto windows = *cut_windows(Protocol::kLlamaCpp, counting(25), 8, 1);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[1].ids, (std::vector<uint32_t>{1, 109, 110, 111, 112, 113, 114, 115}));
  // llama.cpp scores context − 1 − context/2 tokens of a window.
  EXPECT_EQ(windows[1].ids.size() - windows[1].first_scored, 3u);
}

TEST(Windows, WithoutBosTheFirstTokenStays) {
  const auto windows = *cut_windows(Protocol::kLlamaCpp, counting(8), 8, std::nullopt);
  EXPECT_EQ(windows[0].ids, counting(8));
}

TEST(Windows, MlxScoresAllButTheFirst) {
  const auto windows = *cut_windows(Protocol::kMlx, counting(17), 8, 1);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[0].ids, counting(8));
  EXPECT_EQ(windows[0].first_scored, 1u);
}

TEST(Windows, PlainScoresEveryTokenOnce) {
  for (const std::optional<uint32_t> bos : {std::optional<uint32_t>(1), std::optional<uint32_t>()})
    for (size_t count = 2; count < 40; ++count) {
      std::vector<uint32_t> scored;
      const auto windows = cut_windows(Protocol::kPlain, counting(count), 8, bos);
      for (const Window& window : *windows) {
        EXPECT_LE(window.ids.size(), 8u);
        ASSERT_GT(window.ids.size(), window.first_scored);
        scored.insert(scored.end(), window.ids.begin() + 1, window.ids.end());
      }
      const auto all = counting(count);
      EXPECT_EQ(scored, std::vector(all.begin() + (bos ? 0 : 1), all.end())) << count;
    }
}

TEST(Windows, ShortTextsAreRefused) {
  const auto windows = cut_windows(Protocol::kMlx, counting(7), 8, 1);
  ASSERT_FALSE(windows.has_value());
  EXPECT_EQ(windows.error().message,
            "the text has 7 tokens; protocol mlx with a context of 8 needs 8");
  EXPECT_FALSE(cut_windows(Protocol::kPlain, counting(1), 8, std::nullopt).has_value());
}

TEST(Windows, NamesGoBothWays) {
  for (const Protocol protocol : {Protocol::kLlamaCpp, Protocol::kMlx, Protocol::kPlain})
    EXPECT_EQ(protocol_from_name(protocol_name(protocol)), protocol);
  EXPECT_FALSE(protocol_from_name("hellaswag").has_value());
}

}  // namespace
}  // namespace sluice::evaluate
