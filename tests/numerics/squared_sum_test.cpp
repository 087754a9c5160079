// The sum of squares against its definition, and against a sum in another order.
#include "numerics/squared_sum.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace sluice::numerics {
namespace {

TEST(SquaredSum, FollowsItsDefinition) {
  std::mt19937 random(5);
  std::normal_distribution<float> bell(0, 3);
  for (size_t size = 0; size < 200; ++size) {
    std::vector<float> values(size);
    for (float& value : values) value = bell(random);
    double partial[16] = {}, expected = 0, in_order = 0;
    for (size_t i = 0; i < size; ++i) {
      partial[i % 16] += double{values[i]} * double{values[i]};
      in_order += double{values[i]} * double{values[i]};
    }
    for (const double sum : partial) expected += sum;
    EXPECT_EQ(squared_sum(values), expected) << size;
    EXPECT_NEAR(squared_sum(values), in_order, 1e-12 * in_order) << size;
  }
}

TEST(SquaredSum, HugeAndTinyValuesKeepTheirSquares) {
  EXPECT_EQ(squared_sum(std::vector<float>(32, 1e30f)), 32 * (double{1e30f} * double{1e30f}));
  EXPECT_EQ(squared_sum(std::vector<float>(1, 1e-40f)), double{1e-40f} * double{1e-40f});
}

}  // namespace
}  // namespace sluice::numerics
