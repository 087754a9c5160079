// What the table promises beyond equality with the reference (kernel_check.cpp holds that): which
// sets it offers, and the defaults of analysis.
#include "kernels/kernel_table.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace sluice::kernels {
namespace {

using numerics::BestPrice;
using numerics::DType;
using numerics::QuantFormat;

TEST(KernelTable, OffersTheSetOfThisProcessor) {
  EXPECT_EQ(kernel_table(SimdLevel::kScalar).level(), SimdLevel::kScalar);
  const SimdLevel level = detect_cpu().simd;
  EXPECT_EQ(kernel_table(level).level(), level);
}

TEST(KernelTable, SetsOfOtherProcessorsAreTheScalarOne) {
#if defined(__aarch64__)
  EXPECT_EQ(kernel_table(SimdLevel::kAvx2).level(), SimdLevel::kScalar);
  EXPECT_EQ(kernel_table(SimdLevel::kAvx512).level(), SimdLevel::kScalar);
#else
  EXPECT_EQ(kernel_table(SimdLevel::kNeon).level(), SimdLevel::kScalar);
#endif
}

TEST(KernelTable, DefaultBestFormatsAreDistinctCandidates) {
  std::set<QuantFormat> seen;
  for (const QuantFormat& format : default_best_formats()) {
    EXPECT_TRUE(seen.insert(format).second);
    EXPECT_EQ(numerics::parse_format(numerics::format_text(format)).value(), format);
  }
}

// A list of mixed groups, in no order, gives each format the price it has alone.
TEST(KernelTable, PriceBestDoesNotDependOnCompany) {
  const KernelTable& table = kernel_table(detect_cpu().simd);
  std::mt19937_64 random(9);
  std::normal_distribution<float> bell(0, 0.02f);
  std::vector<float> row(384);
  for (float& x : row) x = bell(random);
  std::vector<QuantFormat> formats;
  for (size_t i = 0; i < numerics::kAffineCandidates; ++i)
    formats.push_back(numerics::affine_candidate_format((i * 7) % numerics::kAffineCandidates));
  std::vector<BestPrice> together(formats.size());
  table.price_best(row, formats, DType::kBF16, together);
  for (size_t i = 0; i < formats.size(); ++i) {
    BestPrice alone;
    table.price_best(row, {&formats[i], 1}, DType::kBF16, {&alone, 1});
    EXPECT_EQ(alone.squared_error, together[i].squared_error) << numerics::format_text(formats[i]);
    EXPECT_EQ(alone.error_max, together[i].error_max) << numerics::format_text(formats[i]);
  }
}

}  // namespace
}  // namespace sluice::kernels
