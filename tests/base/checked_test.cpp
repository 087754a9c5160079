// Checked arithmetic at the edges that file-derived sizes reach.
#include "base/checked.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

constexpr uint64_t kMax = UINT64_MAX;
const uint64_t kEdges[] = {
    0, 1, 2, 3, 1ull << 31, 1ull << 32, 1ull << 53, (1ull << 63) - 1, 1ull << 63, kMax - 1, kMax};

TEST(Checked, SumsAgreeWithWiderArithmetic) {
  for (const uint64_t a : kEdges)
    for (const uint64_t b : kEdges) {
      const auto wide = static_cast<unsigned __int128>(a) + b;
      const auto sum = checked_add(a, b);
      EXPECT_EQ(sum.has_value(), wide <= kMax);
      if (sum) {
        EXPECT_EQ(*sum, static_cast<uint64_t>(wide));
      }
    }
}

TEST(Checked, ProductsAgreeWithWiderArithmetic) {
  for (const uint64_t a : kEdges)
    for (const uint64_t b : kEdges) {
      const auto wide = static_cast<unsigned __int128>(a) * b;
      const auto product = checked_mul(a, b);
      EXPECT_EQ(product.has_value(), wide <= kMax);
      if (product) {
        EXPECT_EQ(*product, static_cast<uint64_t>(wide));
      }
    }
}

TEST(Checked, AlignUp) {
  for (const uint64_t alignment : std::vector<uint64_t>{1, 3, 32, 16384, 1ull << 63, kMax})
    for (const uint64_t value : kEdges) {
      const auto wide =
          (static_cast<unsigned __int128>(value) + alignment - 1) / alignment * alignment;
      const auto aligned = checked_align_up(value, alignment);
      EXPECT_EQ(aligned.has_value(), wide <= kMax) << value << " to " << alignment;
      if (aligned) {
        EXPECT_EQ(*aligned, static_cast<uint64_t>(wide));
      }
    }
  EXPECT_EQ(align_up(0, 32), 0u);
  EXPECT_EQ(align_up(33, 32), 64u);
}

TEST(Checked, ProductOfMany) {
  const auto product = [](std::vector<uint64_t> factors) { return checked_product(factors); };
  EXPECT_EQ(product({}), 1u);
  EXPECT_EQ(product({2, 3, 5}), 30u);
  EXPECT_EQ(product({1ull << 32, 1ull << 31}), 1ull << 63);
  EXPECT_EQ(product({1ull << 32, 1ull << 32}), std::nullopt);
  EXPECT_EQ(product({0, kMax, 0}), 0u);
  // Overflow is an error even when a later zero would hide it.
  EXPECT_EQ(product({kMax, 2, 0}), std::nullopt);
}

}  // namespace
}  // namespace sluice
