// Values of reply headers: the strict form is taken, everything else is as if it were not there.
#include "io/http_headers.h"

#include <gtest/gtest.h>

namespace sluice::io {
namespace {

TEST(HttpHeaders, FieldsByNameInAnyCase) {
  HttpHeaders headers;
  EXPECT_TRUE(headers.add("Content-Length:  12 \r\n"));
  EXPECT_TRUE(headers.add("content-length: 13"));
  EXPECT_TRUE(headers.add("no field"));
  EXPECT_TRUE(headers.add(": nameless"));
  EXPECT_TRUE(headers.add("empty:"));
  EXPECT_EQ(headers.find("content-length"), "12");
  EXPECT_EQ(headers.find("empty"), "");
  EXPECT_EQ(headers.find("etag"), std::nullopt);
}

TEST(HttpHeaders, NoMoreThanThereIsReasonFor) {
  HttpHeaders many;
  size_t taken = 0;
  while (many.add("a: b")) ASSERT_LT(++taken, 1000u);
  HttpHeaders large;
  EXPECT_FALSE(large.add("a: " + std::string(100'000, 'x')));
}

TEST(HttpHeaders, StatusLines) {
  EXPECT_EQ(parse_status_line("HTTP/1.1 206 Partial Content\r\n"), 206);
  EXPECT_EQ(parse_status_line("HTTP/2 200"), 200);
  for (const char* line : {"", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 2x6",
                           "HTTP/1.1 999", "HTTP/1.1 099", "ICY 200 OK", "Content-Length: 200"})
    EXPECT_EQ(parse_status_line(line), std::nullopt) << line;
}

TEST(HttpHeaders, ContentRanges) {
  EXPECT_EQ(parse_content_range("bytes 0-99/1234"), (ContentRange{0, 99, 1234}));
  EXPECT_EQ(parse_content_range(" bytes 5-5/6 "), (ContentRange{5, 5, 6}));
  for (const char* value : {"",
                            "bytes",
                            "bytes ",
                            "bytes 0-99",
                            "bytes 0-99/*",
                            "bytes */1234",
                            "bytes 9-0/99",
                            "bytes 0-99/99",
                            "bytes 0-99/50",
                            "bytes -1-5/9",
                            "bytes 0--5/9",
                            "bytes +0-5/9",
                            "bytes 0x0-5/9",
                            "bytes 0-5/9/9",
                            "bytes 0-5 /9",
                            "lines 0-5/9",
                            "Bytes 0-5/9",
                            "bytes 0-18446744073709551616/18446744073709551617",
                            "bytes /-",
                            "bytes 1/2-3"})
    EXPECT_EQ(parse_content_range(value), std::nullopt) << value;
  EXPECT_EQ(parse_content_range("bytes 0-18446744073709551614/18446744073709551615")->size,
            UINT64_MAX);
}

TEST(HttpHeaders, UnsatisfiedRanges) {
  EXPECT_EQ(parse_unsatisfied_range("bytes */0"), 0u);
  EXPECT_EQ(parse_unsatisfied_range("bytes */1234"), 1234u);
  for (const char* value : {"", "bytes */", "bytes */-1", "bytes */1x", "bytes 0-1/2", "*/12"})
    EXPECT_EQ(parse_unsatisfied_range(value), std::nullopt) << value;
}

TEST(HttpHeaders, RetryAfter) {
  EXPECT_EQ(parse_retry_after("0", 0), 0.0);
  EXPECT_EQ(parse_retry_after(" 120 ", 0), 120.0);
  // 784111777 seconds after 1970.
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111770), 7.0);
  EXPECT_EQ(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111800), 0.0);
  for (const char* value : {"", "soon", "-5", "99999999999999999999999"})
    EXPECT_EQ(parse_retry_after(value, 0), std::nullopt) << value;
}

TEST(HttpHeaders, EntityTags) {
  EXPECT_EQ(parse_etag(" \"abc-1\" "), "\"abc-1\"");
  EXPECT_EQ(parse_etag("W/\"abc\""), "W/\"abc\"");
  EXPECT_EQ(parse_etag("\"\""), "\"\"");
  for (const char* value : {"", "\"", "abc", "\"a\"b\"", "\"a b\"", "w/\"a\"", "\"a\n\"", "W/a"})
    EXPECT_EQ(parse_etag(value), "") << value;
  EXPECT_EQ(parse_etag("\"" + std::string(1000, 'a') + "\""), "");
  EXPECT_TRUE(is_strong_etag("\"a\""));
  EXPECT_FALSE(is_strong_etag("W/\"a\""));
  EXPECT_FALSE(is_strong_etag(""));
  EXPECT_EQ(etag_text("W/\"a\""), "a");
  EXPECT_EQ(etag_text("\"a\""), "a");
  EXPECT_EQ(etag_text(""), "");
}

TEST(HttpHeaders, NextLinks) {
  EXPECT_EQ(parse_next_link("<https://h/a?c=1>; rel=\"next\""), "https://h/a?c=1");
  EXPECT_EQ(parse_next_link("<https://h/b>; rel=\"last\", <https://h/c>; rel=\"next\""),
            "https://h/c");
  for (const char* value : {"", "<", "<>", "<https://h/b>; rel=\"last\"", "rel=\"next\"",
                            "https://h/; rel=\"next\"", ">", "><"})
    EXPECT_EQ(parse_next_link(value).value_or("").find("http"), std::string::npos) << value;
}

}  // namespace
}  // namespace sluice::io
