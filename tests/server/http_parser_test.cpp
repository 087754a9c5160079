// Requests as clients send them, in any pieces, and the ways in which they can be ambiguous.
#include "server/http_parser.h"

#include <gtest/gtest.h>

namespace sluice::server {
namespace {

using State = HttpParser::State;

// Feeds pieces of a length; what is behind the request stays.
HttpParser parse(std::string_view bytes, size_t piece = 1 << 20, HttpLimits limits = {}) {
  HttpParser parser(limits);
  while (!bytes.empty() && parser.state() < State::kComplete)
    bytes.remove_prefix(parser.feed(bytes.substr(0, piece)));
  return parser;
}

constexpr std::string_view kPost =
    "POST /v1/x?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

TEST(HttpParser, TakesARequestInPiecesOfAnyLength) {
  for (const size_t piece : {1, 2, 3, 7, 100}) {
    HttpParser parser = parse(kPost, piece);
    ASSERT_EQ(parser.state(), State::kComplete);
    const HttpRequest request = parser.take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/x");
    EXPECT_EQ(request.query, "a=b");
    EXPECT_EQ(request.body, "hello");
    EXPECT_EQ(*request.header("host"), "localhost");
    EXPECT_TRUE(request.keep_alive);
    EXPECT_TRUE(parser.idle());
  }
}

TEST(HttpParser, TakesChunksInPiecesOfAnyLength) {
  for (const size_t piece : {1, 2, 5, 100}) {
    HttpParser parser = parse(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n"
        "5\r\nhello\r\nA\r\n, wide wor\r\n2\r\nld\r\n0\r\n\r\n",
        piece);
    ASSERT_EQ(parser.state(), State::kComplete) << parser.refusal().message;
    const HttpRequest request = parser.take();
    EXPECT_EQ(request.body, "hello, wide world");
    EXPECT_FALSE(request.keep_alive);
  }
}

TEST(HttpParser, LeavesWhatFollowsARequest) {
  HttpParser parser({});
  std::string two(kPost);
  two.append("GET / HTTP/1.1\r\n");
  const size_t head = parser.feed(two);
  EXPECT_EQ(parser.state(), State::kBody);
  const size_t body = parser.feed(std::string_view(two).substr(head));
  EXPECT_EQ(head + body, kPost.size());
  EXPECT_EQ(parser.feed("GET"), 0u);
  parser.take();
  EXPECT_EQ(parser.state(), State::kHead);
}

TEST(HttpParser, RefusesWhatCanBeReadInTwoWays) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n";
  const std::pair<std::string, int> cases[] = {
      {head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
      {head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
      {head + "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", 400},
      {head + "Content-Length: +5\r\n\r\n", 400},
      {head + "Content-Length: -5\r\n\r\n", 400},
      {head + "Content-Length: 0x5\r\n\r\n", 400},
      {head + "Content-Length: 5, 5\r\n\r\n", 400},
      {head + "Content-Length: 5 5\r\n\r\n", 400},
      {head + "Content-Length:\r\n\r\n", 400},
      {head + "Content-Length: 99999999999999999999999\r\n\r\n", 400},
      {head + "Content-Length : 5\r\n\r\n", 400},
      {head + " Content-Length: 5\r\n\r\n", 400},
      {head + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {head + "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400},
      {head + "Transfer-Encoding:\vchunked\r\n\r\n", 400},
      {head + "X: a\r\n folded\r\nContent-Length: 5\r\n\r\n", 400},
      {head + "X: a\nContent-Length: 5\r\n\r\n", 400},
      {head + "X: a\rContent-Length: 5\r\n\r\n", 400},
      {head + "Host: b\r\nContent-Length: 5\r\n\r\n", 400},
      {head + "\r\n", 411},
      {"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400},
      {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\n", 400},
      {"GET / /HTTP/1.1\r\n", 505},
      {"GET http://other/ HTTP/1.1\r\n", 400},
      {"GET / HTTP/2.0\r\n", 505},
      {"GET /\r\n", 400},
      {"\r\nGET / HTTP/1.1\r\n", 400},
      {std::string("GET /\0 HTTP/1.1\r\n", 17), 400},
  };
  for (const auto& [bytes, status] : cases) {
    const HttpParser parser = parse(bytes);
    ASSERT_EQ(parser.state(), State::kRefused) << bytes;
    EXPECT_EQ(parser.refusal().status, status) << bytes << parser.refusal().message;
  }
}

TEST(HttpParser, RefusesChunksThatAreNone) {
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string_view chunks :
       {"5\r\nhello!\r\n", "-5\r\n", "5;x=y\r\n", " 5\r\n", "\r\n", "g\r\n", "5\n",
        "0\r\nTrailer: x\r\n", "ffffffffffffffff\r\n", "10000000000000000\r\n"}) {
    EXPECT_EQ(parse(head + std::string(chunks)).state(), State::kRefused) << chunks;
  }
  const std::string long_line(100, '0');
  EXPECT_EQ(parse(head + long_line).state(), State::kRefused);
}

TEST(HttpParser, KeepsToItsLimits) {
  HttpLimits limits;
  limits.body_bytes_max = 10;
  limits.head_bytes_max = 200;
  limits.headers_max = 3;
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\n";
  EXPECT_EQ(parse(head + "Content-Length: 11\r\n\r\n", 1, limits).refusal().status, 413);
  EXPECT_EQ(parse(head + "Content-Length: 10\r\n\r\n0123456789", 1, limits).state(),
            State::kComplete);
  EXPECT_EQ(parse(head + "Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n", 1, limits)
                .refusal()
                .status,
            413);
  EXPECT_EQ(parse(head + "A: a\r\nB: b\r\nC: c\r\n\r\n", 1, limits).refusal().status, 431);
  EXPECT_EQ(parse(std::string(201, 'G'), 50, limits).refusal().status, 431);
  EXPECT_EQ(parse(head + std::string(300, 'x'), 50, limits).refusal().status, 431);
}

}  // namespace
}  // namespace sluice::server
