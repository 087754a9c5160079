// Addresses that a page's link must not lead to.
#include "io/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>

#include "io/http_client.h"

namespace sluice::io {
namespace {

bool is_public(const char* text) {
  std::array<uint8_t, 16> bytes{};
  if (::inet_pton(AF_INET, text, bytes.data()) == 1)
    return is_public_address(std::span(bytes).first(4));
  EXPECT_EQ(::inet_pton(AF_INET6, text, bytes.data()), 1) << text;
  return is_public_address(bytes);
}

TEST(Address, OursAreNotPublic) {
  for (const char* text : {"0.0.0.0",
                           "0.1.2.3",
                           "10.0.0.1",
                           "10.255.255.255",
                           "100.64.0.1",
                           "100.127.255.255",
                           "127.0.0.1",
                           "127.255.255.254",
                           "169.254.169.254",
                           "169.254.0.1",
                           "172.16.0.1",
                           "172.31.255.255",
                           "192.0.0.1",
                           "192.0.2.1",
                           "192.168.0.1",
                           "192.168.255.255",
                           "198.18.0.1",
                           "198.19.255.255",
                           "198.51.100.1",
                           "203.0.113.1",
                           "224.0.0.1",
                           "239.255.255.255",
                           "240.0.0.1",
                           "255.255.255.255",
                           "168.63.129.16",
                           "::",
                           "::1",
                           "::ffff:127.0.0.1",
                           "::ffff:8.8.8.8",
                           "::127.0.0.1",
                           "64:ff9b::127.0.0.1",
                           "64:ff9b::10.0.0.1",
                           "64:ff9b:1::1",
                           "100::1",
                           "fc00::1",
                           "fd00:ec2::254",
                           "fe80::1",
                           "fec0::1",
                           "ff02::1",
                           "2001::1",
                           "2001:db8::1",
                           "2002:7f00:1::",
                           "2002:a00:1::",
                           "2002:a9fe:a9fe::",
                           "3fff::1",
                           "4000::1"})
    EXPECT_FALSE(is_public(text)) << text;
  EXPECT_FALSE(is_public_address({}));
}

TEST(Address, OthersArePublic) {
  for (const char* text : {"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255",
                           "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.1.1",
                           "172.15.255.255", "172.32.0.0", "192.167.1.1", "223.255.255.255",
                           "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8", "2002:808:808::"})
    EXPECT_TRUE(is_public(text)) << text;
}

// As written in addresses, in every form that resolves to this machine.
TEST(Address, ClientConnectsToPublicOnesAlone) {
  HttpOptions options;
  options.public_only = true;
  options.attempts_max = 1;
  options.connect_timeout_s = 2;
  HttpClient client(options);
  for (const char* text :
       {"http://127.0.0.1:9/", "http://localhost:9/", "http://2130706433:9/", "http://0x7f.1:9/",
        "http://0177.0.0.1:9/", "http://127.1:9/", "http://[::1]:9/",
        "http://[::ffff:127.0.0.1]:9/", "http://0.0.0.0:9/", "http://169.254.169.254/latest/",
        "http://[fe80::1]:9/", "http://10.0.0.1:9/", "http://[64:ff9b::7f00:1]:9/"}) {
    const auto url = parse_url(text);
    if (!url) continue;  // refused before
    const auto reply = client.exchange({.url = *url});
    ASSERT_FALSE(reply) << text;
    EXPECT_NE(reply.error().error.message.find("not a public one"), std::string::npos)
        << text << ": " << reply.error().error.message;
    EXPECT_FALSE(reply.error().transient);
  }
}

}  // namespace
}  // namespace sluice::io
