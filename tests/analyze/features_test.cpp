// Features of matrices whose spectrum and kurtosis are known, and of whole models: bounds, the same
// file on any number of threads, resuming. Against numpy: features_reference_test.py.
#include "analyze/features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "analyze/matrix_features.h"
#include "support/models.h"

namespace sluice::analyze {
namespace {

using ::testing::HasSubstr;

Spectrum spectrum_of(const std::vector<float>& rows, uint64_t columns, uint64_t rows_per_call = 7) {
  SpectrumSketch sketch;
  sketch.reset(columns);
  for (size_t at = 0; at < rows.size(); at += rows_per_call * columns)
    sketch.add_rows(
        std::span(rows).subspan(at, std::min(rows_per_call * columns, rows.size() - at)));
  return sketch.finish();
}

// σ_i on the diagonal of a [rows × columns] matrix, its columns mixed by signs and a rotation that
// keeps singular values: every pair (2i, 2i+1) turned by 45 degrees.
std::vector<float> diagonal(uint64_t rows, uint64_t columns, const std::vector<double>& sigma) {
  std::vector<float> matrix(rows * columns);
  for (size_t i = 0; i < sigma.size(); ++i) {
    const uint64_t pair = i / 2 * 2;
    matrix[i * columns + pair] = static_cast<float>(sigma[i] * std::sqrt(0.5));
    matrix[i * columns + pair + 1] =
        static_cast<float>((i % 2 == 0 ? 1 : -1) * sigma[i] * std::sqrt(0.5));
  }
  return matrix;
}

std::vector<double> geometric(size_t count, double ratio) {
  std::vector<double> sigma;
  for (size_t i = 0; i < count; ++i) sigma.push_back(std::pow(ratio, static_cast<double>(i)));
  return sigma;
}

TEST(Spectrum, Exact) {
  const auto sigma = geometric(20, 0.8);
  double squares = 0, leading = 0;
  for (size_t i = 0; i < sigma.size(); ++i) {
    squares += sigma[i] * sigma[i];
    leading += i < 20 ? sigma[i] * sigma[i] : 0;
  }
  const Spectrum spectrum = spectrum_of(diagonal(33, 100, sigma), 100);
  EXPECT_TRUE(spectrum.exact);
  EXPECT_EQ(spectrum.rank, 33u);
  EXPECT_NEAR(spectrum.squared_norm, squares, 1e-6);
  EXPECT_NEAR(spectrum.stable_rank, squares, 1e-5);
  EXPECT_NEAR(spectrum.tail_mass, 0, 1e-6);
  EXPECT_TRUE(std::isinf(spectrum.spectral_spread));
  EXPECT_NEAR(leading, squares, 1e-12);
}

TEST(Spectrum, SketchedFindsTheLeadingValues) {
  const uint64_t columns = 1500;
  const auto sigma = geometric(400, 0.98);
  double squares = 0, leading = 0;
  for (size_t i = 0; i < sigma.size(); ++i) {
    squares += sigma[i] * sigma[i];
    if (i < kSketchRankMax) leading += sigma[i] * sigma[i];
  }
  const Spectrum spectrum = spectrum_of(diagonal(400, columns, sigma), columns);
  EXPECT_FALSE(spectrum.exact);
  EXPECT_LE(spectrum.rank, kSketchRankMax);  // those above the sketch's noise
  EXPECT_GE(spectrum.rank, kSketchRankMax - 8);
  EXPECT_NEAR(spectrum.squared_norm, squares, squares * 1e-6);
  // Never above the truth; close to it for the first.
  EXPECT_GE(spectrum.stable_rank, squares * (1 - 1e-4));
  EXPECT_LE(spectrum.stable_rank, squares * 1.02);
  EXPECT_GE(spectrum.tail_mass, 1 - leading / squares - 1e-5);
}

TEST(Spectrum, FewRowsAreExactInASketch) {
  const uint64_t columns = 1500;
  const auto sigma = geometric(40, 0.9);
  const Spectrum spectrum = spectrum_of(diagonal(40, columns, sigma), columns);
  EXPECT_EQ(spectrum.rank, 40u);
  EXPECT_NEAR(spectrum.tail_mass, 0, 1e-5);
  EXPECT_NEAR(spectrum.spectral_spread, 1 / sigma.back(), 0.02 / sigma.back());
}

TEST(Spectrum, ZerosAndOddShapes) {
  for (const uint64_t columns : {1u, 3u, 8u, 1023u, 1025u}) {
    const Spectrum zero = spectrum_of(std::vector<float>(columns * 5), columns);
    EXPECT_EQ(zero.stable_rank, 0) << columns;
    EXPECT_EQ(zero.squared_norm, 0) << columns;
    std::vector<float> one(columns * 5);
    one[columns * 3] = 2;
    const Spectrum single = spectrum_of(one, columns);
    EXPECT_NEAR(single.stable_rank, 1, 1e-5) << columns;
    EXPECT_NEAR(single.tail_mass, 0, 1e-5) << columns;
  }
}

TEST(Spectrum, MemoryIsBounded) {
  EXPECT_EQ(sketch_rank(8192), 256u);
  EXPECT_EQ(sketch_rank(21845), 256u);
  EXPECT_EQ(sketch_rank(3), 3u);
  for (const uint64_t columns : {1ull, 1024ull, 1025ull, 8192ull, 28672ull, 53248ull, 248'320ull}) {
    EXPECT_LE(sketch_bytes(columns), 80ull << 20) << columns;
    EXPECT_GE(sketch_rank(columns), std::min<uint64_t>(columns, 16)) << columns;
  }
}

TEST(Kurtosis, OfKnownGroups) {
  KurtosisHistogram histogram;
  histogram.reset();
  EXPECT_FALSE(histogram.finish().has_value());
  histogram.add_row(std::vector<float>(127, 1.0f));  // no whole group
  histogram.add_row(std::vector<float>(128, 1.0f));  // constant
  EXPECT_FALSE(histogram.finish().has_value());
  std::vector<float> halves(128, 1.0f);  // kurtosis −2
  std::fill_n(halves.begin(), 64, -1.0f);
  for (int i = 0; i < 9; ++i) histogram.add_row(halves);
  std::vector<float> spike(128, 0.0f);  // variance p(1−p), excess 1/p + 1/(1−p) − 6
  spike[77] = 5;
  histogram.add_row(spike);
  const double excess = 128 + 128.0 / 127 - 6 + 0;
  const auto found = histogram.finish();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->groups, 10u);
  EXPECT_NEAR(found->p90, -2, 1.0 / 256);
  EXPECT_NEAR(found->p99_minus_p50, excess + 2, 1.0 / 128);
  EXPECT_NEAR(found->max_minus_median, excess + 2, 1.0 / 128);
  EXPECT_DOUBLE_EQ(found->share_beyond_3_sigma, 0.1);
}

class Features : public ::testing::Test {
 protected:
  std::string text(const test::ModelBuilder& model, unsigned workers, SimdLevel simd,
                   const std::string& begun = "") {
    io::MemoryStorage storage;
    test::make_work_folder(storage);
    if (!begun.empty()) {
      EXPECT_TRUE(io::write_file_atomically(storage, "work/f", begun));
    }
    const auto checkpoint = model.build();
    FeatureOptions options;
    options.workers = workers;
    options.simd = simd;
    const auto summary =
        write_features(storage, *checkpoint, test::map_of(*checkpoint), "work/f", options);
    if (!summary) return summary.error().message;
    const auto source = storage.open_source("work/f");
    return *io::read_text(**source, 1 << 24);
  }
};

TEST_F(Features, ThreadsAndInstructionSetsDoNotShow) {
  for (const auto& model : {test::tiny_llama(), test::tiny_moe()}) {
    const std::string reference = text(model, 1, SimdLevel::kScalar);
    EXPECT_THAT(reference, HasSubstr("\"complete\""));
    for (const SimdLevel level : test::simd_levels()) EXPECT_EQ(text(model, 5, level), reference);
  }
}

TEST_F(Features, EveryExpertIsAMatrix) {
  const std::string found = text(test::tiny_moe({.layers = 1}), 2, SimdLevel::kScalar);
  const auto line = found.find("switch_mlp.up_proj");
  ASSERT_NE(line, std::string::npos);
  const std::string start = found.substr(found.rfind('\n', line) + 1);
  const std::string record = start.substr(0, start.find('\n'));
  size_t matrices = 0;
  for (size_t at = record.find("\"stable_rank\""); at != std::string::npos;
       at = record.find("\"stable_rank\"", at + 1))
    ++matrices;
  EXPECT_EQ(matrices, 4u);
}

TEST_F(Features, ResumesFromAnywhere) {
  const auto model = test::tiny_llama();
  const std::string whole = text(model, 2, test::widest_simd());
  for (size_t cut = 0; cut < whole.size(); cut += 311)
    ASSERT_EQ(text(model, 2, test::widest_simd(), whole.substr(0, cut)), whole) << cut;
}

TEST_F(Features, RefusesWhatItCannotContinue) {
  const std::string other = text(test::tiny_llama({.layers = 1, .seed = 2}), 1, SimdLevel::kScalar);
  EXPECT_THAT(text(test::tiny_moe(), 1, SimdLevel::kScalar, other),
              HasSubstr("no features file of this source"));
}

TEST_F(Features, RefusesValuesThatAreNoNumbers) {
  auto model = test::tiny_llama();
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  auto& bytes = model.bytes(name);
  bytes[301] = std::byte{0x7f};
  bytes[300] = std::byte{0xc0};  // bf16 NaN
  for (const unsigned workers : {1u, 4u}) {
    const std::string message = text(model, workers, test::widest_simd());
    EXPECT_THAT(message, HasSubstr(name));
    EXPECT_THAT(message, HasSubstr("nan"));
  }
}

TEST(FeatureMemory, FitsTheStage) {
  const auto checkpoint = test::tiny_llama().build();
  const auto map = test::map_of(*checkpoint);
  for (const unsigned workers : {1u, 4u, 64u}) {
    const FeatureMemory memory = feature_memory(map, workers);
    EXPECT_GE(memory.threads, 1u);
    EXPECT_LE(memory.threads, workers);
    EXPECT_LE(memory.bytes, 192ull << 20);
  }
}

}  // namespace
}  // namespace sluice::analyze
