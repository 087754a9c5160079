// Requests against a server that gives prepared replies: attempts that end, redirects, tokens that
// stay at their origin, replies that are no good; and a source over it.
#include "io/http_client.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "io/http_source.h"

namespace sluice::io {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Answers request after request with the next of its replies, the last one for good; every
// connection serves one. An empty reply is a connection that is closed.
class PreparedServer {
 public:
  explicit PreparedServer(std::vector<std::string> replies) : replies_(std::move(replies)) {
    std::signal(SIGPIPE, SIG_IGN);  // clients go away
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_.emplace([this] { serve(); });
  }
  ~PreparedServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.reset();
    close(listener_);
  }

  Url url(const std::string& path) const {
    return parse_url(fmt::format("http://127.0.0.1:{}{}", port_, path)).value();
  }
  std::vector<std::string> requests() {
    MutexLock lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (size_t number = 0;; ++number) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      std::string request;
      char piece[4096];
      while (request.find("\r\n\r\n") == std::string::npos) {
        const ssize_t count = recv(connection, piece, sizeof piece, 0);
        if (count <= 0) break;
        request.append(piece, static_cast<size_t>(count));
      }
      {
        MutexLock lock(mutex_);
        requests_.push_back(request);
      }
      const std::string& reply = replies_[std::min(number, replies_.size() - 1)];
      for (size_t sent = 0; sent < reply.size();) {
        const ssize_t count = send(connection, reply.data() + sent, reply.size() - sent, 0);
        if (count <= 0) break;
        sent += static_cast<size_t>(count);
      }
      close(connection);
    }
  }

  const std::vector<std::string> replies_;
  int listener_ = -1;
  uint16_t port_ = 0;
  Mutex mutex_;
  std::vector<std::string> requests_ GUARDED_BY(mutex_);
  std::optional<Thread> thread_;  // joins
};

std::string reply(std::string_view status, std::string_view headers, std::string_view body) {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", status,
                     body.size(), headers, body);
}

HttpOptions impatient() {
  HttpOptions options;
  options.attempts_max = 4;
  options.wait_first_s = 0.001;
  options.wait_max_s = 0.002;
  return options;
}

TEST(HttpClient, FailuresThatPassArePassed) {
  PreparedServer server({"", reply("503 Busy", "", "later"),
                         reply("429 Slow down", "Retry-After: 0\r\n", ""),
                         reply("200 OK", "", "hello")});
  HttpClient client(impatient());
  const auto found = client.fetch({.url = server.url("/x")});
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->body, "hello");
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST(HttpClient, FailuresThatDoNotPassEnd) {
  PreparedServer server({reply("503 Busy", "", "")});
  HttpClient client(impatient());
  const auto found = client.fetch({.url = server.url("/x?signature")});
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kIo);
  EXPECT_THAT(found.error().message, HasSubstr("503"));
  EXPECT_THAT(found.error().message, HasSubstr("(4 attempts)"));
  EXPECT_THAT(found.error().message, Not(HasSubstr("signature")));
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST(HttpClient, NobodyThere) {
  const Url url = [] {
    PreparedServer server({""});
    return server.url("/");
  }();
  HttpClient client(impatient());
  const auto found = client.fetch({.url = url});
  ASSERT_FALSE(found.has_value());
  EXPECT_THAT(found.error().message, HasSubstr("(4 attempts)"));
}

TEST(HttpClient, RefusalsAreFinal) {
  for (const char* status : {"400 Bad", "401 Who", "403 No", "501 Never"}) {
    PreparedServer server({reply(status, "", "no")});
    HttpClient client(impatient());
    EXPECT_FALSE(client.fetch({.url = server.url("/")}).has_value()) << status;
    EXPECT_EQ(server.requests().size(), 1u) << status;
  }
}

TEST(HttpClient, TooLongAWaitIsNotWaited) {
  PreparedServer server({reply("429 Slow down", "Retry-After: 4000\r\n", "")});
  HttpClient client(impatient());
  const auto found = client.fetch({.url = server.url("/")});
  ASSERT_FALSE(found.has_value());
  EXPECT_THAT(found.error().message, HasSubstr("come back in 4000 s"));
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST(HttpClient, CancellationEndsAWait) {
  PreparedServer server({reply("503 Busy", "Retry-After: 60\r\n", "")});
  CancelToken cancel;
  HttpOptions options = impatient();
  options.cancel = &cancel;
  HttpClient client(options);
  const auto begun = std::chrono::steady_clock::now();
  Thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    cancel.cancel();
  });
  const auto found = client.fetch({.url = server.url("/")});
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
}

TEST(HttpClient, TokensStayAtTheirOrigin) {
  PreparedServer store({reply("200 OK", "", "data")});
  PreparedServer hub(
      {reply("302 There", fmt::format("Location: {}\r\n", store.url("/s").text()), "")});
  HttpOptions options = impatient();
  options.token = "hf_secret";
  options.token_origin = hub.url("/").origin();
  HttpClient client(options);
  const auto found = client.fetch({.url = hub.url("/x")});
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->body, "data");
  EXPECT_EQ(found->url, store.url("/s"));
  EXPECT_THAT(hub.requests().at(0), HasSubstr("Authorization: Bearer hf_secret"));
  EXPECT_THAT(store.requests().at(0), Not(HasSubstr("hf_secret")));
}

TEST(HttpClient, RedirectsThatLeadNowhere) {
  PreparedServer round({reply("302 There", "Location: /again\r\n", "")});
  HttpClient client(impatient());
  auto found = client.fetch({.url = round.url("/")});
  ASSERT_FALSE(found.has_value());
  EXPECT_THAT(found.error().message, HasSubstr("redirected more than"));
  for (const char* location : {"ftp://host/", "http://user:word@host/", "http://ho st/"}) {
    PreparedServer server({reply("302 There", fmt::format("Location: {}\r\n", location), "")});
    found = client.fetch({.url = server.url("/")});
    ASSERT_FALSE(found.has_value()) << location;
    EXPECT_THAT(found.error().message, HasSubstr("redirected"));
    EXPECT_EQ(server.requests().size(), 1u);
  }
}

TEST(HttpClient, RepliesWithoutEnd) {
  PreparedServer header({"HTTP/1.1 200 OK\r\nX: " + std::string(80'000, 'x') + "\r\n\r\n"});
  HttpClient client(impatient());
  EXPECT_FALSE(client.fetch({.url = header.url("/")}).has_value());
  PreparedServer body({reply("200 OK", "", std::string(1000, 'x'))});
  const auto found = client.fetch({.url = body.url("/"), .body_bytes_max = 999});
  ASSERT_FALSE(found.has_value());
  EXPECT_THAT(found.error().message, HasSubstr("longer than 999 bytes"));
  PreparedServer garbage({"no http at all\r\n\r\n"});
  EXPECT_FALSE(client.fetch({.url = garbage.url("/")}).has_value());
}

TEST(HttpSource, GoesOnBehindWhatArrived) {
  const std::string begun =
      "HTTP/1.1 206 Partial\r\nContent-Length: 8\r\nContent-Range: bytes 2-9/10\r\n\r\n234";
  PreparedServer server({begun, reply("206 Partial", "Content-Range: bytes 5-9/10\r\n", "56789")});
  const auto client = std::make_shared<HttpClient>(impatient());
  const auto source = http_source(client, {.url = server.url("/f"), .label = "f", .bytes = 10});
  std::string text(8, ' ');
  const Status status = source->read_at(2, std::as_writable_bytes(std::span(text)));
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_EQ(text, "23456789");
  EXPECT_THAT(server.requests().at(0), HasSubstr("Range: bytes=2-9\r\n"));
  EXPECT_THAT(server.requests().at(1), HasSubstr("Range: bytes=5-9\r\n"));
}

TEST(HttpSource, RepliesThatAreHeldAgainstTheQuestion) {
  const std::pair<std::string, const char*> cases[] = {
      {reply("206 Partial", "Content-Range: bytes 3-10/20\r\n", "34567890"), "asked for bytes 2-9"},
      {reply("206 Partial", "Content-Range: bytes 2-8/20\r\n", "2345678"), "asked for bytes 2-9"},
      {reply("206 Partial", "Content-Range: bytes 2-9/21\r\n", "23456789"),
       "its size is 21, was 20"},
      {reply("206 Partial", "", "23456789"), "no usable Content-Range"},
      {reply("206 Partial", "Content-Range: bytes 2-9/*\r\n", "23456789"), "Content-Range"},
      {reply("206 Partial", "Content-Range: bytes 2-9/20\r\n", "23456789x"), "more than the 8"},
      {reply("206 Partial", "Content-Range: bytes 2-9/20\r\nETag: \"b\"\r\n", "23456789"),
       "its ETag is \"b\", was \"a\""},
      {reply("206 Partial", "Content-Range: bytes 2-9/20\r\nContent-Encoding: gzip\r\n",
             "23456789"),
       "compressed"},
      {reply("200 OK", "", "01234567890123456789"), "ignores ranges"},
      {reply("412 Changed", "", ""), "has changed"},
      {reply("416 Where", "Content-Range: bytes */5\r\n", ""), "has changed"},
      {reply("404 Gone", "", ""), "not found on the server"}};
  for (const auto& [answer, words] : cases) {
    PreparedServer server({answer});
    const auto source =
        http_source(std::make_shared<HttpClient>(impatient()),
                    {.url = server.url("/f"), .label = "f", .bytes = 20, .etag = "\"a\""});
    std::string text(8, ' ');
    const Status status = source->read_at(2, std::as_writable_bytes(std::span(text)));
    ASSERT_FALSE(status.has_value()) << answer;
    EXPECT_THAT(status.error().message, HasSubstr(words));
    EXPECT_EQ(server.requests().size(), 1u) << answer;
  }
}

TEST(HttpSource, RangesPastTheEndAreNotAskedFor) {
  const auto source = http_source(std::make_shared<HttpClient>(impatient()),
                                  {.url = Url{"http", "127.0.0.1", 9, "/", ""}, .bytes = 20});
  std::byte bytes[8];
  EXPECT_EQ(source->read_at(13, bytes).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(source->read_at(UINT64_MAX, bytes).error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(source->read_at(20, std::span<std::byte>()).has_value());
}

TEST(HttpSource, FirstByteTellsOfTheFile) {
  PreparedServer there(
      {reply("206 Partial", "Content-Range: bytes 0-0/1234\r\nETag: \"x\"\r\n", "a")});
  HttpClient client(impatient());
  auto found = find_remote_file(client, there.url("/f"));
  ASSERT_TRUE(found.has_value() && found->has_value());
  EXPECT_EQ((*found)->bytes, 1234u);
  EXPECT_EQ((*found)->etag, "\"x\"");
  PreparedServer whole({reply("200 OK", "", std::string(5000, 'x'))});
  found = find_remote_file(client, whole.url("/f"));
  ASSERT_TRUE(found.has_value() && found->has_value());
  EXPECT_EQ((*found)->bytes, 5000u);
  PreparedServer empty({reply("416 Where", "Content-Range: bytes */0\r\n", "")});
  found = find_remote_file(client, empty.url("/f"));
  ASSERT_TRUE(found.has_value() && found->has_value());
  EXPECT_EQ((*found)->bytes, 0u);
  PreparedServer missing({reply("404 Not", "", "")});
  found = find_remote_file(client, missing.url("/f"));
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(found->has_value());
  PreparedServer silent({"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"});
  EXPECT_EQ(find_remote_file(client, silent.url("/f")).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sluice::io
