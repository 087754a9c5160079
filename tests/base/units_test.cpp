// Sizes as people write them, exact to the byte, and everything else refused.
#include "base/units.h"

#include <gmock/gmock.h>

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(ParseBytes, Units) {
  const std::pair<std::string_view, uint64_t> cases[] = {{"24GB", 24'000'000'000},
                                                         {"24 GB", 24'000'000'000},
                                                         {"24gb", 24'000'000'000},
                                                         {"1.5GiB", 1'610'612'736},
                                                         {"800MB", 800'000'000},
                                                         {"123456B", 123'456},
                                                         {"0B", 0},
                                                         {"1kB", 1000},
                                                         {"1KB", 1000},
                                                         {"1KiB", 1024},
                                                         {"2MiB", 2u << 20},
                                                         {"1TB", 1'000'000'000'000},
                                                         {"1TiB", 1ull << 40},
                                                         {".5kB", 500},
                                                         {"5.kB", 5000},
                                                         {"0.0001kB", 0},
                                                         {"1.9999B", 1},
                                                         {"8TiB", 8ull << 40}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = parse_bytes(text);
    ASSERT_TRUE(parsed) << text << ": " << parsed.error().message;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

// Binary floating point must not eat a byte of a decimal budget.
TEST(ParseBytes, DecimalsAreExact) {
  for (uint64_t thousandths = 1; thousandths < 30'000; ++thousandths) {
    const std::string number = fmt::format("{}.{:03}", thousandths / 1000, thousandths % 1000);
    for (const auto& [unit, factor] : {std::pair<std::string_view, uint64_t>{"kB", 1},
                                       {"MB", 1000},
                                       {"GB", 1'000'000},
                                       {"TB", 1'000'000'000}}) {
      const auto parsed = parse_bytes(number + std::string(unit));
      ASSERT_TRUE(parsed);
      ASSERT_EQ(*parsed, thousandths * factor) << number << unit;
    }
  }
}

TEST(ParseBytes, RefusedWithAHint) {
  for (const std::string_view text : {"",
                                      " ",
                                      "GB",
                                      "24",
                                      "24.5",
                                      "-1GB",
                                      "+1GB",
                                      "1e3GB",
                                      "1.2.3GB",
                                      ".GB",
                                      "..GB",
                                      "24XB",
                                      "24G",
                                      "24GBs",
                                      "24 G B",
                                      "inf GB",
                                      "nanGB",
                                      "0x10GB",
                                      "1,5GB",
                                      "24GB ",
                                      "\x32\x34@b",
                                      "10000000TB",
                                      "99999999999999999999999999GB"})
    EXPECT_FALSE(parse_bytes(text)) << text;
  EXPECT_THAT(parse_bytes("24").error().message, HasSubstr("no unit"));
  EXPECT_THAT(parse_bytes("24XB").error().message, HasSubstr("XB"));
  EXPECT_EQ(parse_bytes("24").error().code, ErrorCode::kInvalidArgument);
}

TEST(ParseBytes, TheLargestThatFits) {
  EXPECT_TRUE(parse_bytes("9000000TB"));
  EXPECT_TRUE(parse_bytes("9223372036854775807B"));
  EXPECT_EQ(*parse_bytes("9007199254740993B"), 9007199254740993u);
  EXPECT_FALSE(parse_bytes("9223372036854775808B"));
}

TEST(SizeUnit, AsItIsSpelledHere) {
  EXPECT_EQ(size_unit("24gib"), "GiB");
  EXPECT_EQ(size_unit("1.5 MB"), "MB");
  EXPECT_EQ(size_unit("7b"), "B");
  EXPECT_EQ(size_unit("24"), "");
  EXPECT_EQ(size_unit("many"), "");
}

TEST(BytesTextIn, AGivenUnit) {
  EXPECT_EQ(bytes_text_in(24ull << 30, "GiB"), "24.0000 GiB");
  EXPECT_EQ(bytes_text_in(134'500'000, "GB"), "0.134500 GB");
  EXPECT_EQ(bytes_text_in(123'456'789, "kB"), "123456.789 kB");
  EXPECT_EQ(bytes_text_in(17, "B"), "17 B");
}

TEST(SizeArgument, IsReadAsAtLeastThatMuch) {
  EXPECT_EQ(size_argument_at_least(24'317'185'000, "GB"), "24.3172GB");
  EXPECT_EQ(size_argument_at_least(17, "B"), "17B");
  const uint64_t sizes[] = {0,
                            1,
                            999,
                            1024,
                            1'000'000,
                            123'456'789,
                            24'317'185'001,
                            (1ull << 40) + 1,
                            9'007'199'254'740'993};
  for (const char* unit : {"B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"})
    for (const uint64_t bytes : sizes) {
      const std::string text = size_argument_at_least(bytes, unit);
      const auto parsed = parse_bytes(text);
      ASSERT_TRUE(parsed.has_value()) << text;
      EXPECT_GE(*parsed, bytes) << text;
      // No more than a hundred-thousandth too much, unless a single byte is.
      EXPECT_LE(*parsed, bytes + bytes / 50'000 + 1) << text;
    }
}

TEST(BytesText, FourDigits) {
  const std::pair<uint64_t, std::string_view> cases[] = {{0, "0 B"},
                                                         {999, "999 B"},
                                                         {1000, "1.000 kB"},
                                                         {1536, "1.536 kB"},
                                                         {24'000'000'000, "24.00 GB"},
                                                         {123'456'789, "123.5 MB"},
                                                         {9'999'600, "10.00 MB"},
                                                         {999'949, "999.9 kB"},
                                                         {999'950, "1.000 MB"},
                                                         {UINT64_MAX, "18446.7 PB"}};
  for (const auto& [bytes, text] : cases) EXPECT_EQ(bytes_text(bytes), text);
}

TEST(DurationText, Units) {
  EXPECT_EQ(duration_text(0), "0.0 s");
  EXPECT_EQ(duration_text(4.23), "4.2 s");
  EXPECT_EQ(duration_text(59.97), "1 min 00 s");
  EXPECT_EQ(duration_text(200), "3 min 20 s");
  EXPECT_EQ(duration_text(3599.7), "1 h 00 min");
  EXPECT_EQ(duration_text(3720), "1 h 02 min");
}

}  // namespace
}  // namespace sluice
