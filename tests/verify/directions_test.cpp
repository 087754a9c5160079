// Errors that lie in few directions: the share found against what was put in, and against noise;
// which rows are looked at; and a whole verification that warns of one module alone.
#include <gmock/gmock.h>

#include <cmath>
#include <random>
#include <set>

#include "verify/error_directions.h"
#include "verify/leading_share.h"
#include "verify/outputs.h"

namespace sluice::verify {
namespace {

using numerics::Encoder;
using test::Job;
using Size = std::pair<uint64_t, uint64_t>;  // rows, columns

std::vector<float> noise(uint64_t rows, uint64_t columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> matrix(rows * columns);
  for (float& value : matrix) value = normal(random);
  return matrix;
}

// Adds a direction with so many times the noise's energy.
void add_direction(std::vector<float>& matrix, uint64_t columns, double energy, unsigned seed) {
  const uint64_t rows = matrix.size() / columns;
  const std::vector<float> left = noise(rows, 1, seed), right = noise(1, columns, seed + 1);
  const auto size = static_cast<float>(std::sqrt(energy));
  for (uint64_t i = 0; i < matrix.size(); ++i)
    matrix[i] += size * left[i / columns] * right[i % columns];
}

TEST(LeadingShare, OfNoiseIsNotAboveItsBound) {
  for (const auto& [rows, columns] :
       {Size{64, 64}, Size{64, 2048}, Size{1024, 256}, Size{256, 1000}}) {
    const double share = leading_share(noise(rows, columns, 1), columns);
    EXPECT_LT(share, 1.05 * white_share(rows, columns));
    EXPECT_GT(share, 0.4 * white_share(rows, columns));
  }
}

TEST(LeadingShare, FindsWhatWasPutIn) {
  for (const double energy : {0.2, 1.0, 10.0}) {
    std::vector<float> matrix = noise(256, 1024, 2);
    add_direction(matrix, 1024, energy, 7);
    const double share = leading_share(matrix, 1024);
    const double planted = energy / (1 + energy);
    EXPECT_GT(share, 0.9 * planted);
    EXPECT_LT(share, planted + white_share(256, 1024));
    EXPECT_GT(share, kConcentration * white_share(256, 1024));
  }
}

TEST(LeadingShare, OfFewDirectionsAloneIsEverything) {
  std::vector<float> matrix(100 * 64);
  EXPECT_EQ(leading_share(matrix, 64), 0);
  add_direction(matrix, 64, 1, 3);
  EXPECT_NEAR(leading_share(matrix, 64), 1, 1e-5);
  for (unsigned i = 1; i < 8; ++i) add_direction(matrix, 64, 1, 3 + 2 * i);
  EXPECT_NEAR(leading_share(matrix, 64), 1, 1e-5);
}

TEST(LeadingShare, DoesNotDependOnTheScale) {
  std::vector<float> matrix = noise(128, 512, 5);
  add_direction(matrix, 512, 1, 6);
  const double share = leading_share(matrix, 512);
  for (const float scale : {1e-18f, 1e18f}) {
    std::vector<float> scaled = matrix;
    for (float& value : scaled) value *= scale;
    EXPECT_NEAR(leading_share(scaled, 512), share, 1e-5);
  }
}

TEST(RowSample, TakesOneRowOfEveryStretch) {
  for (const auto& [rows, columns] :
       {Size{64, 256}, Size{4096, 4096}, Size{248'320, 2048}, Size{1000, 53'248}}) {
    const RowSample sample(rows, columns);
    ASSERT_GE(sample.count(), 64u);
    EXPECT_LE(sample.count(), rows);
    EXPECT_LE(sample.count() * columns, 4u << 20);
    for (uint64_t i = 0; i < sample.count(); ++i) {
      EXPECT_LE(sample.row(i) * sample.count() / rows, i);
      if (i > 0) {
        EXPECT_GT(sample.row(i), sample.row(i - 1));
      }
    }
    EXPECT_LT(sample.row(sample.count() - 1), rows);
  }
}

TEST(RowSample, BlocksFindTheirRows) {
  const RowSample sample(4097, 4096);
  std::set<uint64_t> found;
  for (uint64_t first = 0; first < 4097; first += 50)
    for (uint64_t i = sample.first_from(first); i < sample.count() && sample.row(i) < first + 50;
         ++i)
      EXPECT_TRUE(found.insert(sample.row(i)).second);
  EXPECT_EQ(found.size(), sample.count());
}

TEST(RowSample, LooksAtNothingWhereNothingCanBeTold) {
  EXPECT_EQ(RowSample(8, 4096).count(), 0u);
  EXPECT_EQ(RowSample(4096, 8).count(), 0u);
  EXPECT_EQ(RowSample(32, 32).count(), 0u);
  EXPECT_EQ(RowSample(64, 4 << 20).count(), 0u);
}

// Weights in which a row's groups of 32 all hold one outlier at the same columns: at 2 bits the
// other weights of such a group round to one value, so that the error is the weights themselves,
// and these were drawn from one direction in a single module.
test::ModelBuilder model_with_a_direction(const std::string& tensor, uint64_t rows,
                                          uint64_t columns) {
  test::ModelBuilder model =
      test::tiny_llama({.dtype = numerics::DType::kF32, .vocab = 512, .layers = 1});
  model.remove(tensor);
  std::vector<float> values = noise(rows, columns, 11);
  for (float& value : values) value *= 0.05f;
  add_direction(values, columns, 0.01, 12);
  for (uint64_t i = 0; i < values.size(); ++i)
    if (i % 32 == 0) values[i] = 8;
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  model.add_bytes(tensor, numerics::DType::kF32, {rows, columns}, std::move(bytes));
  return model;
}

TEST(Directions, OneModuleIsWarnedOf) {
  const auto plain = test::tiny_llama({.dtype = numerics::DType::kF32, .vocab = 512, .layers = 1});
  const auto sizes = test::map_of(*plain.build());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const families::OutputModule* wanted = nullptr;
  for (const families::OutputModule& module : sizes.modules)
    if (module.tensor_name() == name) wanted = &module;
  ASSERT_NE(wanted, nullptr);
  const auto checkpoint = model_with_a_direction(name, wanted->rows(), wanted->columns()).build();
  const auto map = test::map_of(*checkpoint);
  const Job job{checkpoint, map,
                test::plan_of(*checkpoint, map, [](const families::OutputModule&, size_t) {
                  return test::Planned{test::affine(2, 32), Encoder::kParity};
                })};
  const test::Files files = test::converted(job);
  std::vector<ConcentratedError> first;
  for (const unsigned workers : {1u, 3u}) {
    const auto report = test::verify_files(job, files, workers);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->passed()) << test::findings_text(*report);
    EXPECT_GT(report->directions_measured, 0u);
    ASSERT_EQ(report->concentrated.size(), 1u);
    EXPECT_EQ(report->concentrated[0].tensor, name);
    EXPECT_FALSE(report->concentrated[0].has_experts);
    EXPECT_GT(report->concentrated[0].share, kConcentration * report->concentrated[0].white_share);
    if (first.empty()) first = report->concentrated;
    EXPECT_EQ(report->concentrated, first);
  }
}

}  // namespace
}  // namespace sluice::verify
