// Stop strings found wherever the pieces are cut.
#include "chat/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

#include "support/seed.h"

namespace sluice::chat {
namespace {

struct Seen {
  std::string text;
  bool stopped;
  bool operator==(const Seen&) const = default;
};

Seen feed_all(const std::string& text, const std::vector<std::string>& stops, auto&& cut) {
  StopStrings filter(stops);
  std::string seen;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::min(text.size() - at, static_cast<size_t>(cut()));
    seen += filter.feed(text.substr(at, length));
    at += length;
  }
  seen += filter.finish();
  return {seen, filter.stopped()};
}

TEST(StopStrings, CutsAtTheFirst) {
  StopStrings filter({"END", "###"});
  EXPECT_EQ(filter.feed("one E"), "one ");
  EXPECT_EQ(filter.feed("N two"), "EN two");
  EXPECT_EQ(filter.feed(" #"), " ");
  EXPECT_EQ(filter.feed("## three END"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.feed("more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopStrings, HeldTextComesAtTheEnd) {
  StopStrings filter({"\n\nUser:", ""});
  EXPECT_EQ(filter.feed("answer\n\nUse"), "answer");
  EXPECT_EQ(filter.finish(), "\n\nUse");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopStrings, NothingToStopAtHoldsNothing) {
  StopStrings filter({});
  EXPECT_EQ(filter.feed("abc"), "abc");
}

// Short alphabet, so that overlaps and repeated beginnings are common.
TEST(StopStrings, AnyCutGivesWhatOnePieceGives) {
  std::mt19937_64 random(test::seed());
  const auto word = [&](size_t length) {
    std::string text;
    while (text.size() < length) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    const std::string text = word(random() % 40);
    const std::vector<std::string> stops = {word(2 + random() % 6), word(3 + random() % 6)};
    const Seen expected = feed_all(text, stops, [] { return 1; });
    EXPECT_EQ(feed_all(text, stops, [&] { return 1 + random() % 4; }), expected)
        << text << " " << stops[0] << " " << stops[1];
    const bool found =
        text.find(stops[0]) != std::string::npos || text.find(stops[1]) != std::string::npos;
    EXPECT_EQ(expected.stopped, found);
    EXPECT_TRUE(found || expected.text == text);
    EXPECT_EQ(text.substr(0, expected.text.size()), expected.text);
  }
}

}  // namespace
}  // namespace sluice::chat
