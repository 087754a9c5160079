// Distances, and which words count as near.
#include "base/suggest.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

const std::vector<std::string> kWords = {"threads", "budget", "best", "quantize"};

TEST(Suggest, Distances) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Suggest, NearestWord) {
  EXPECT_EQ(nearest_word("thread", kWords), "threads");
  EXPECT_EQ(nearest_word("bugdet", kWords), "budget");
  EXPECT_EQ(nearest_word("quantise", kWords), "quantize");
  EXPECT_EQ(nearest_word("beast", kWords), "best");
  EXPECT_EQ(nearest_word("frobnicate", kWords), "");
  EXPECT_EQ(nearest_word("x", {}), "");
}

TEST(Suggest, Sentence) {
  EXPECT_EQ(did_you_mean("thread", kWords), "; did you mean \"threads\"?");
  EXPECT_EQ(did_you_mean("frobnicate", kWords), "");
}

}  // namespace
}  // namespace sluice
