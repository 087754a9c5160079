// Addresses: what is taken, what is refused and in which words, where redirects lead, and what
// counts as this machine.
#include "io/url.h"

#include <gtest/gtest.h>

namespace sluice::io {
namespace {

Url url_of(std::string_view text) {
  const auto url = parse_url(text);
  EXPECT_TRUE(url.has_value()) << text << ": " << (url ? "" : url.error().message);
  return url.value_or(Url());
}

TEST(Url, PartsAreTold) {
  EXPECT_EQ(url_of("https://Example.COM/a/b.gguf?x=1&y=2#part"),
            (Url{"https", "example.com", 443, "/a/b.gguf", "x=1&y=2"}));
  EXPECT_EQ(url_of("HTTP://host:8080"), (Url{"http", "host", 8080, "/", ""}));
  EXPECT_EQ(url_of("http://[::1]:81/x"), (Url{"http", "[::1]", 81, "/x", ""}));
  EXPECT_EQ(url_of("https://host?q").query, "q");
  EXPECT_EQ(url_of("https://host/\xc3\xa4").path, "/%C3%A4");
}

TEST(Url, TextAndOriginLeaveOutTheUsualPort) {
  EXPECT_EQ(url_of("https://host:443/a?b").text(), "https://host/a?b");
  EXPECT_EQ(url_of("https://host:80/a?b").text(), "https://host:80/a?b");
  EXPECT_EQ(url_of("https://host:80/a?b").origin(), "https://host:80");
  EXPECT_EQ(url_of("https://host/a?signature").label(), "https://host/a");
}

TEST(Url, Refused) {
  for (const char* text : {"",
                           "host/a",
                           "ftp://host/a",
                           "file:///etc/passwd",
                           "https://",
                           "https:///a",
                           "https://:80/",
                           "https://host:0/",
                           "https://host:65536/",
                           "https://host:8x/",
                           "https://host:/",
                           "https://user@host/",
                           "https://user:hunter2@host/",
                           "https://ho st/",
                           "https://host/a b",
                           "https://host/a\nb",
                           "https://host\\@other/",
                           "https://a..b/",
                           "https://.a/",
                           "https://[::1/",
                           "https://[x]/",
                           "https://h%6fst/",
                           "javascript:alert(1)"}) {
    const auto url = parse_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_EQ(url.error().code, ErrorCode::kInvalidArgument) << text;
    EXPECT_EQ(url.error().message.find("hunter2"), std::string::npos) << url.error().message;
  }
  EXPECT_FALSE(parse_url("https://host/" + std::string(20'000, 'a')).has_value());
}

TEST(Url, Loopback) {
  for (const char* text :
       {"http://localhost/", "http://127.0.0.1:1/", "http://127.1.2.3/", "http://[::1]/"})
    EXPECT_TRUE(url_of(text).loopback()) << text;
  for (const char* text : {"http://127.0.0.1.example.com/", "http://127.evil.com/",
                           "http://localhost.example.com/", "http://10.0.0.1/", "http://[::2]/"})
    EXPECT_FALSE(url_of(text).loopback()) << text;
}

TEST(Url, Redirects) {
  const Url base = url_of("https://host:444/a/b/c?d");
  const auto leads_to = [&](std::string_view reference) {
    const auto found = resolve_reference(base, reference);
    return found ? found->text() : "error: " + found.error().message;
  };
  EXPECT_EQ(leads_to("https://other/x?y"), "https://other/x?y");
  EXPECT_EQ(leads_to("//other/x"), "https://other/x");
  EXPECT_EQ(leads_to("/x?y"), "https://host:444/x?y");
  EXPECT_EQ(leads_to("x/y"), "https://host:444/a/b/x/y");
  EXPECT_EQ(leads_to("?z"), "https://host:444/a/b/c?z");
  for (const char* reference : {"", "ftp://other/", "javascript:x", "//user@other/", "/a b"})
    EXPECT_FALSE(resolve_reference(base, reference).has_value()) << reference;
}

TEST(Url, PercentCodes) {
  EXPECT_EQ(percent_encode("a b/c%#?+~"), "a%20b%2Fc%25%23%3F%2B~");
  EXPECT_EQ(percent_encode("a/b c", true), "a/b%20c");
  EXPECT_EQ(percent_decode("a%20b%2fc%C3%A4").value(), "a b/c\xc3\xa4");
  for (const char* text : {"%", "%2", "%zz", "a%2", "%00", "%0a", "%7f"})
    EXPECT_FALSE(percent_decode(text).has_value()) << text;
  for (int c = 0x20; c < 256; ++c) {
    if (c == 0x7f) continue;
    const std::string text(1, static_cast<char>(c));
    EXPECT_EQ(percent_decode(percent_encode(text)).value(), text) << c;
  }
}

TEST(Url, FilesInFolders) {
  EXPECT_EQ(file_in(url_of("https://h/m"), "a b.json").text(), "https://h/m/a%20b.json");
  EXPECT_EQ(file_in(url_of("https://h/m/?q"), "x").text(), "https://h/m/x");
}

}  // namespace
}  // namespace sluice::io
