// Against the published test vectors, in one piece and in many.
#include "base/sha.h"

#include <gtest/gtest.h>

#include <string_view>

namespace sluice {
namespace {

std::string sha(ShaKind kind, std::string_view text, size_t piece) {
  ShaHasher hasher(kind);
  for (size_t at = 0; at < text.size(); at += piece)
    hasher.update(std::as_bytes(std::span(text.substr(at, piece))));
  return hasher.finish();
}

TEST(Sha, Vectors) {
  for (const size_t piece : {1u, 2u, 100u}) {
    EXPECT_EQ(sha(ShaKind::kSha256, "abc", piece),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha(ShaKind::kSha256, "", piece),
              "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha(ShaKind::kSha1, "abc", piece), "a9993e364706816aba3e25717850c26c9cd0d89d");
  }
}

}  // namespace
}  // namespace sluice
