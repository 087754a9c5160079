// Drafts from what came before: the longest match, the latest of equals, bounds.
#include "chat/ngram_draft.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/seed.h"

namespace sluice::chat {
namespace {

using Tokens = std::vector<uint32_t>;

Tokens draft(const Tokens& tokens, size_t draft_max, const NgramOptions& options = {}) {
  const auto found = ngram_draft(tokens, draft_max, options);
  return {found.begin(), found.end()};
}

TEST(NgramDraft, ContinuesTheLongestMatch) {
  EXPECT_EQ(draft({1, 2, 3, 4, 9, 2, 3, 7, 8, 1, 2, 3}, 2), (Tokens{4, 9}));
  EXPECT_EQ(draft({5, 6, 1, 8, 5, 6, 2, 8, 5, 6}, 3), (Tokens{2, 8, 5}));  // the latest of equals
}

TEST(NgramDraft, EndsWhereTheTokensEnd) {
  EXPECT_EQ(draft({1, 2, 3, 1, 2}, 10), (Tokens{3, 1, 2}));
  EXPECT_EQ(draft({7, 7, 7, 7}, 10), (Tokens{7}));
}

TEST(NgramDraft, NothingToSay) {
  EXPECT_TRUE(draft({}, 4).empty());
  EXPECT_TRUE(draft({1}, 4).empty());
  EXPECT_TRUE(draft({1, 2, 3, 4}, 4).empty());
  EXPECT_TRUE(draft({1, 5, 1}, 4).empty());  // shorter than match_min
  EXPECT_EQ(draft({1, 5, 1}, 4, {.match_min = 1}), (Tokens{5, 1}));
  EXPECT_TRUE(draft({1, 2, 1, 2}, 0).empty());
}

// Against every place tried in turn.
TEST(NgramDraft, EqualsBruteForce) {
  std::mt19937_64 random(test::seed());
  for (int round = 0; round < 2000; ++round) {
    Tokens tokens(random() % 40);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % 3);
    size_t length_best = 0, end_best = 0;
    for (size_t end = 1; end < tokens.size(); ++end)
      for (size_t length = 2; length <= std::min<size_t>(4, end); ++length)
        if (std::equal(tokens.begin() + static_cast<long>(end - length),
                       tokens.begin() + static_cast<long>(end),
                       tokens.end() - static_cast<long>(length)) &&
            length >= length_best) {
          length_best = length;
          end_best = end;
        }
    Tokens expected;
    if (length_best > 0)
      for (size_t i = end_best; i < std::min(tokens.size(), end_best + 5); ++i)
        expected.push_back(tokens[i]);
    EXPECT_EQ(draft(tokens, 5), expected);
  }
}

}  // namespace
}  // namespace sluice::chat
