// Digests: xxHash's own values, pieces equal to the whole, and one spelling only.
#include "base/digest.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

std::span<const std::byte> bytes_of(const std::vector<uint8_t>& data) {
  return std::as_bytes(std::span(data));
}

// From the xxhash package of PyPI (3.x, XXH3-128, hexdigest).
TEST(Digest, KnownValues) {
  EXPECT_EQ(digest_of("").hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(digest_of("a").hex(), "a96faf705af16834e6c632b61e964e1f");
  EXPECT_EQ(digest_of("Sluice").hex(), "1117c077887a06e08a33d86921661b05");
  std::vector<uint8_t> ramp(1000);
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(digest_of(bytes_of(ramp)).hex(), "076f7e02b7120d2ad33dd80b46f60e50");
}

TEST(Digest, PiecesEqualTheWhole) {
  std::vector<uint8_t> data(5000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31 + i / 7);
  for (const size_t piece : {1u, 7u, 64u, 240u, 241u, 1024u, 4999u}) {
    Hasher hasher;
    for (size_t at = 0; at < data.size(); at += piece)
      hasher.update(bytes_of(data).subspan(at, std::min(piece, data.size() - at)));
    EXPECT_EQ(hasher.finish(), digest_of(bytes_of(data)));
  }
}

TEST(Digest, DigestsOfDigestsUseTheCanonicalForm) {
  const Digest inner = digest_of("a");
  std::vector<uint8_t> canonical;
  const std::string hex = inner.hex();
  for (size_t i = 0; i < hex.size(); i += 2)
    canonical.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  Hasher hasher;
  hasher.update(inner);
  EXPECT_EQ(hasher.finish(), digest_of(bytes_of(canonical)));
}

TEST(Digest, FinishMayBeAskedTwiceAndMovedFrom) {
  Hasher hasher;
  hasher.update("ab");
  EXPECT_EQ(hasher.finish(), digest_of("ab"));
  Hasher moved = std::move(hasher);
  moved.update("c");
  EXPECT_EQ(moved.finish(), digest_of("abc"));
}

TEST(Digest, HexRoundTrip) {
  for (const Digest& digest : {Digest{}, Digest{1, 2}, Digest{UINT64_MAX, 0x0123456789abcdef}}) {
    const auto back = Digest::from_hex(digest.hex());
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, digest);
  }
}

TEST(Digest, RefusesAnyOtherSpelling) {
  const std::string good = digest_of("a").hex();
  EXPECT_TRUE(Digest::from_hex(good));
  for (const std::string& bad :
       {std::string(), good.substr(1), good + "0", " " + good.substr(1), "-" + good.substr(1),
        "+" + good.substr(1), "0x" + good.substr(2), good.substr(0, 15) + "g" + good.substr(16),
        good.substr(0, 31) + " ", std::string(32, 'A')})
    EXPECT_FALSE(Digest::from_hex(bad)) << bad;
}

}  // namespace
}  // namespace sluice
