// Who may ask: the matrix of Host and Origin, tokens, and types of bodies.
#include "server/guard.h"

#include <gtest/gtest.h>

namespace sluice::server {
namespace {

using Header = std::pair<std::string, std::string>;

HttpRequest ask(std::vector<Header> headers, std::string method = "GET",
                std::string path = "/v1/models") {
  HttpRequest request;
  request.method = std::move(method);
  request.path = std::move(path);
  request.headers = std::move(headers);
  return request;
}

int status(const HttpRequest& request, const GuardOptions& options) {
  const auto refusal = check_request(request, options);
  return refusal ? refusal->status : 200;
}

TEST(Guard, HostAndOrigin) {
  GuardOptions options;
  options.hosts = {"box.example"};
  options.origins = {"https://app.example"};
  struct Case {
    std::string host, origin;
    int status;
  };
  const Case cases[] = {
      {"127.0.0.1:8080", "", 200},
      {"localhost:8080", "", 200},
      {"LOCALHOST", "", 200},
      {"[::1]:8080", "", 200},
      {"box.example:80", "", 200},
      {"127.8.9.1", "", 200},
      {"evil.example", "", 403},
      {"evil.example:8080", "", 403},
      {"localhost.evil.example", "", 403},
      {"127.0.0.1.evil.example", "", 403},
      {"192.168.1.5:8080", "", 403},
      {"[2001:db8::1]:8080", "", 403},
      {"", "", 403},
      {"localhost:80:90", "", 403},
      {"localhost:x", "", 403},
      {"localhost@evil.example", "", 403},
      {"localhost:8080", "http://localhost:8080", 200},
      {"localhost:8080", "http://localhost:9090", 403},
      {"localhost:8080", "null", 403},
      {"localhost:8080", "http://evil.example", 403},
      {"localhost:8080", "https://app.example", 200},
      {"localhost:8080", "https://app.example.evil.example", 403},
      {"localhost:8080", "file://localhost:8080", 403},
      {"evil.example", "https://app.example", 403},
  };
  for (const Case& one : cases) {
    std::vector<Header> headers = {{"host", one.host}};
    if (!one.origin.empty()) headers.emplace_back("origin", one.origin);
    EXPECT_EQ(status(ask(headers), options), one.status) << one.host << " " << one.origin;
  }
  EXPECT_EQ(allowed_origin(ask({{"origin", "https://app.example"}}), options),
            "https://app.example");
  EXPECT_EQ(allowed_origin(ask({{"origin", "http://localhost"}}), options), "");
}

TEST(Guard, PagesOfOtherSitesMayLinkAndNothingElse) {
  const GuardOptions options;
  const std::vector<Header> headers = {{"host", "localhost"}, {"sec-fetch-site", "cross-site"}};
  EXPECT_EQ(status(ask(headers), options), 403);
  EXPECT_EQ(status(ask(headers, "GET", "/"), options), 200);
}

TEST(Guard, AsksForTheToken) {
  GuardOptions options;
  options.loopback = false;
  options.token = "a-key-of-some-length";
  const Header host = {"host", "192.168.1.5"};
  EXPECT_EQ(status(ask({host}), options), 401);
  EXPECT_EQ(status(ask({host}, "GET", "/"), options), 200);
  EXPECT_EQ(status(ask({host}, "GET", "/health"), options), 200);
  EXPECT_EQ(status(ask({host}, "POST", "/"), options), 401);
  for (const std::string_view wrong :
       {"a-key-of-some-length", "Bearer a-key-of-some-lengtH", "Bearer", "Bearer ", "Bearer a-key",
        "Basic a-key-of-some-length", "Bearer a-key-of-some-length2"})
    EXPECT_EQ(status(ask({host, {"authorization", std::string(wrong)}}), options), 401) << wrong;
  EXPECT_EQ(status(ask({host, {"authorization", "Bearer a-key-of-some-length"}}), options), 200);
  EXPECT_EQ(status(ask({host, {"authorization", "bearer  a-key-of-some-length"}}), options), 200);
}

TEST(Guard, TakesJsonAlone) {
  const GuardOptions options;
  const Header host = {"host", "localhost"};
  for (const std::string_view type :
       {"application/json", "application/json; charset=utf-8", "Application/JSON"})
    EXPECT_EQ(status(ask({host, {"content-type", std::string(type)}}, "POST"), options), 200);
  for (const std::string_view type :
       {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
        "text/plain; application/json", "application/jsonp", ""})
    EXPECT_EQ(status(ask({host, {"content-type", std::string(type)}}, "POST"), options), 415);
  EXPECT_EQ(status(ask({host}, "POST"), options), 415);
}

}  // namespace
}  // namespace sluice::server
