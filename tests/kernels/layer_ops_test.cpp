// The layer maths against plain formulas in double precision: the bounds that layer_ops.h promises.
// That all instruction sets agree is layer_check's part; this runs the widest one.
#include "kernels/layer_ops.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "support/seed.h"

namespace sluice::kernels {
namespace {

using Random = std::mt19937_64;

class LayerOpsTest : public testing::Test {
 protected:
  std::vector<float> normals(size_t count, float size = 1) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> x(count);
    for (float& value : x) value = normal(random_);
    return x;
  }

  Random random_{test::seed()};
  const LayerOps& ops_ = layer_ops(detect_cpu().simd);
};

// Holds out[i] against expected(i), relative to the larger of itself and floor.
template <class Expected>
void expect_close(std::span<const float> out, Expected expected, double tolerance,
                  double floor = 1e-30) {
  for (size_t i = 0; i < out.size(); ++i) {
    const double want = expected(i);
    EXPECT_LE(std::abs(out[i] - want), tolerance * std::max(std::abs(want), floor))
        << "at " << i << " of " << out.size() << ": " << out[i] << " against " << want;
  }
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

constexpr size_t kSizes[] = {1, 3, 16, 17, 63, 64, 65, 576, 1000, 4096};

// ---- norms ----

TEST_F(LayerOpsTest, RmsNorm) {
  for (const size_t size : kSizes) {
    const auto x = normals(size, 3), weight = normals(size);
    std::vector<float> out(size);
    double squares = 0;
    for (const float value : x) squares += double{value} * value;
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(size) + 1e-5);
    ops_.rms_norm(x, weight, 1e-5f, out);
    expect_close(out, [&](size_t i) { return x[i] * inverse * weight[i]; }, 1e-6);
    ops_.rms_norm(x, {}, 1e-5f, out);
    expect_close(out, [&](size_t i) { return x[i] * inverse; }, 1e-6);
    auto in_place = x;
    ops_.rms_norm(in_place, {}, 1e-5f, in_place);
    EXPECT_EQ(in_place, out);
  }
}

TEST_F(LayerOpsTest, NormOfZerosAndOfLargeNumbers) {
  std::vector<float> x(100, 0), out(100, 7);
  ops_.rms_norm(x, {}, 1e-6f, out);
  EXPECT_EQ(out, std::vector<float>(100, 0));
  ops_.layer_norm(x, {}, {}, 1e-6f, out);
  EXPECT_EQ(out, std::vector<float>(100, 0));
  x.assign(100, -9e17f);
  ops_.rms_norm(x, {}, 1e-6f, out);
  expect_close(out, [](size_t) { return -1; }, 1e-6);
}

TEST_F(LayerOpsTest, LayerNorm) {
  for (const size_t size : kSizes) {
    const auto x = normals(size, 2), weight = normals(size), bias = normals(size);
    double mean = 0, variance = 0;
    for (const float value : x) mean += value / static_cast<double>(size);
    for (const float value : x)
      variance += (value - mean) * (value - mean) / static_cast<double>(size);
    std::vector<float> out(size);
    ops_.layer_norm(x, weight, bias, 1e-5f, out);
    const double inverse = 1 / std::sqrt(variance + 1e-5);
    expect_close(
        out, [&](size_t i) { return (x[i] - mean) * inverse * weight[i] + bias[i]; }, 2e-6, 1);
  }
}

// ---- activations ----

TEST_F(LayerOpsTest, ExpWithinItsBound) {
  std::vector<float> x;
  for (double value = -86.59; value < 88.7; value += 0.00073)
    x.push_back(static_cast<float>(value));
  std::vector<float> out(x.size());
  ops_.exp(x, out);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(double{x[i]});
    const double ulp = std::ldexp(1.0, std::ilogb(want) - 23);
    worst = std::max(worst, std::abs(out[i] - want) / ulp);
  }
  EXPECT_LE(worst, 1.1);
  RecordProperty("worst_ulp", std::to_string(worst));
}

TEST_F(LayerOpsTest, ExpAtTheEnds) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {-kInf, -200, -86.7f, -0.0f, 0, 88.73f, 300, kInf, std::nanf("")};
  std::vector<float> out(x.size());
  ops_.exp(x, out);
  EXPECT_EQ(std::vector<float>(out.begin(), out.end() - 1),
            (std::vector<float>{0, 0, 0, 1, 1, kInf, kInf, kInf}));
  EXPECT_TRUE(std::isnan(out.back()));
}

TEST_F(LayerOpsTest, GatedActivations) {
  for (const float size : {0.1f, 2.0f, 30.0f}) {
    const auto gate = normals(1000, size), up = normals(1000);
    std::vector<float> out(1000);
    ops_.silu_mul(gate, up, out);
    expect_close(out, [&](size_t i) { return gate[i] * sigmoid(gate[i]) * up[i]; }, 1e-6, 1e-30);
    ops_.sigmoid_mul(gate, up, out);
    expect_close(out, [&](size_t i) { return sigmoid(gate[i]) * up[i]; }, 1e-6);
    ops_.sigmoid(gate, out);
    expect_close(out, [&](size_t i) { return sigmoid(gate[i]); }, 1e-6);
  }
}

TEST_F(LayerOpsTest, Gelu) {
  for (const float size : {0.1f, 2.0f, 5.0f}) {
    const auto gate = normals(1000, size), up = normals(1000);
    std::vector<float> out(1000);
    // Relative where the result is not tiny; the tail keeps absolute accuracy.
    ops_.gelu_mul(gate, up, GeluForm::kTanh, out);
    expect_close(
        out,
        [&](size_t i) {
          const double z = gate[i],
                       y = std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z);
          return z * sigmoid(2 * y) * up[i];
        },
        3e-6, 1e-2);
    ops_.gelu_mul(gate, up, GeluForm::kErf, out);
    expect_close(
        out,
        [&](size_t i) { return 0.5 * gate[i] * std::erfc(-gate[i] / std::numbers::sqrt2) * up[i]; },
        1e-6, 1e-2);
  }
}

TEST_F(LayerOpsTest, ClampedSwiglu) {
  const auto gate = normals(500, 8), up = normals(500, 8);
  std::vector<float> out(500);
  ops_.swiglu_clamped(gate, up, 1.702f, 7, out);
  expect_close(
      out,
      [&](size_t i) {
        const double g = std::min(gate[i], 7.0f), u = std::clamp(up[i], -7.0f, 7.0f);
        return (u + 1) * g * sigmoid(double{1.702f} * g);
      },
      2e-6, 1e-20);
}

TEST_F(LayerOpsTest, SoftcapIsOddBoundedAndClose) {
  auto x = normals(1000, 60);
  x.insert(x.end(), {1e9f, -1e9f, 0});
  auto out = x;
  ops_.softcap(out, 30);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(out[i], 30 * std::tanh(double{x[i]} / 30), 4e-7 * 30);
    EXPECT_LE(std::abs(out[i]), 30);
  }
}

// ---- over vectors ----

TEST_F(LayerOpsTest, SoftmaxSumsToOneAndShifts) {
  for (const size_t size : kSizes) {
    auto x = normals(size, 10);
    double total = 0, sum = 0;
    const double top = *std::max_element(x.begin(), x.end());
    for (const float value : x) total += std::exp(value - top);
    auto out = x;
    ops_.softmax(out);
    for (size_t i = 0; i < size; ++i) {
      // x − top is rounded before the exponential, which makes half an ulp of it relative.
      const double want = std::exp(x[i] - top) / total;
      EXPECT_NEAR(out[i], want, want * (1e-6 + (top - x[i]) * 0x1p-24));
    }
    for (const float value : out) sum += value;
    EXPECT_NEAR(sum, 1, 1e-6);
  }
  std::vector<float> masked = {1, -std::numeric_limits<float>::infinity(), 1};
  ops_.softmax(masked);
  EXPECT_EQ(masked, (std::vector<float>{0.5f, 0, 0.5f}));
}

TEST_F(LayerOpsTest, DotAddAndScale) {
  for (const size_t size : kSizes) {
    const auto x = normals(size), y = normals(size);
    double want = 0, magnitude = 0;
    for (size_t i = 0; i < size; ++i) {
      want += double{x[i]} * y[i];
      magnitude += std::abs(double{x[i]} * y[i]);
    }
    EXPECT_NEAR(ops_.dot(x, y), want, 1e-6 * magnitude);
    auto sum = x;
    ops_.add(sum, y);
    for (size_t i = 0; i < size; ++i) EXPECT_EQ(sum[i], x[i] + y[i]);
    sum = x;
    ops_.scale_add(sum, 0.7f, y);
    for (size_t i = 0; i < size; ++i) EXPECT_EQ(sum[i], std::fmaf(0.7f, y[i], x[i]));
  }
  EXPECT_EQ(ops_.dot({}, {}), 0);
}

TEST_F(LayerOpsTest, ArgmaxTakesTheFirstOfEquals) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ops_.argmax(std::vector<float>{3, 5, 5, 1}), 1u);
  EXPECT_EQ(ops_.argmax(std::vector<float>{nan, -3, nan, -2}), 3u);
  EXPECT_EQ(ops_.argmax(std::vector<float>{nan, nan}), 0u);
  EXPECT_EQ(ops_.argmax(std::vector<float>{-inf, -inf}), 0u);
  EXPECT_EQ(ops_.argmax(std::vector<float>{-0.0f, 0.0f}), 0u);
  for (const size_t size : kSizes) {
    auto x = normals(size);
    const size_t at = random_() % size;
    x[at] = 100;
    EXPECT_EQ(ops_.argmax(x), at);
  }
}

TEST_F(LayerOpsTest, TopKIsAStableSort) {
  for (const size_t size : {1, 8, 60, 128, 512}) {
    std::vector<float> x(size);
    for (float& value : x) value = static_cast<float>(random_() % 20);
    if (size > 10) x[3] = std::nanf("");
    std::vector<uint32_t> sorted(size);
    for (size_t i = 0; i < size; ++i) sorted[i] = static_cast<uint32_t>(i);
    std::stable_sort(sorted.begin(), sorted.end(), [&](uint32_t a, uint32_t b) {
      return (std::isnan(x[a]) ? -1 : x[a]) > (std::isnan(x[b]) ? -1 : x[b]);
    });
    for (const size_t k : {size_t{0}, size_t{1}, std::min<size_t>(8, size), size}) {
      std::vector<uint32_t> got(k);
      ops_.top_k(x, got);
      EXPECT_EQ(got, std::vector<uint32_t>(sorted.begin(), sorted.begin() + static_cast<long>(k)));
    }
  }
}

// ---- positions ----

TEST_F(LayerOpsTest, RopeTurnsPairsAndLeavesTheRest) {
  constexpr size_t kHeadDim = 80, kPairs = 30, kHeads = 3;
  std::vector<float> cos(kPairs), sin(kPairs);
  for (size_t j = 0; j < kPairs; ++j) {
    cos[j] = std::cos(static_cast<float>(j) * 0.3f);
    sin[j] = std::sin(static_cast<float>(j) * 0.3f);
  }
  const auto x = normals(kHeads * kHeadDim);
  for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
    auto out = x;
    ops_.rope(out, kHeadDim, cos, sin, style);
    for (size_t head = 0; head < kHeads; ++head) {
      const float *in = x.data() + head * kHeadDim, *got = out.data() + head * kHeadDim;
      for (size_t j = 0; j < kPairs; ++j) {
        const size_t a = style == RopeStyle::kHalf ? j : 2 * j;
        const size_t b = style == RopeStyle::kHalf ? j + kPairs : 2 * j + 1;
        EXPECT_NEAR(got[a], in[a] * cos[j] - in[b] * sin[j], 1e-6);
        EXPECT_NEAR(got[b], in[b] * cos[j] + in[a] * sin[j], 1e-6);
      }
      for (size_t i = 2 * kPairs; i < kHeadDim; ++i) EXPECT_EQ(got[i], in[i]);
    }
  }
}

TEST_F(LayerOpsTest, HadamardIsItsOwnInverseAndKeepsProducts) {
  for (const size_t size : {1, 2, 16, 64, 128, 256}) {
    const auto x = normals(size), y = normals(size);
    auto turned_x = x, turned_y = y;
    ops_.hadamard(turned_x);
    ops_.hadamard(turned_y);
    EXPECT_NEAR(ops_.dot(turned_x, turned_y), ops_.dot(x, y), 1e-5 * static_cast<double>(size));
    ops_.hadamard(turned_x);
    expect_close(turned_x, [&](size_t i) { return x[i]; }, 1e-5, 1);
  }
}

// ---- the cache's formats ----

std::vector<float> through(const LayerOps& ops, KvType type, const std::vector<float>& x) {
  std::vector<std::byte> row(kv_row_bytes(type, x.size()));
  std::vector<float> back(x.size());
  ops.encode_kv(type, x, row);
  ops.decode_kv(type, row, back);
  return back;
}

TEST_F(LayerOpsTest, KvBytes) {
  EXPECT_EQ(kv_row_bytes(KvType::kF32, 80), 320u);
  EXPECT_EQ(kv_row_bytes(KvType::kF16, 80), 160u);
  EXPECT_EQ(kv_row_bytes(KvType::kQ8, 80), 102u);
  EXPECT_EQ(kv_row_bytes(KvType::kQ4, 128), 72u);
}

TEST_F(LayerOpsTest, KvErrorsWithinTheirBounds) {
  for (const size_t size : {1, 16, 31, 32, 33, 64, 80, 128, 576})
    for (const float scale : {1e-3f, 1.0f, 500.0f}) {
      const auto x = normals(size, scale);
      EXPECT_EQ(through(ops_, KvType::kF32, x), x);
      const auto f16 = through(ops_, KvType::kF16, x);
      expect_close(f16, [&](size_t i) { return x[i]; }, 0x1p-11, 0x1p-14);
      const auto q8 = through(ops_, KvType::kQ8, x), q4 = through(ops_, KvType::kQ4, x);
      for (size_t i = 0; i < size; ++i) {
        const size_t group = i / 32 * 32;
        float top = 0;
        for (size_t j = group; j < std::min(size, group + 32); ++j)
          top = std::max(top, std::abs(x[j]));
        // Half a step, the scale's rounding to f16, and what rounding a tiny scale takes. The
        // side of 4 bits that lacks code 8 is off by a whole step at its end.
        const double rounding = 1 + 0x1p-9, tiny = 127 * 0x1p-25;
        EXPECT_LE(std::abs(q8[i] - x[i]), top / 254 * rounding + top * 0x1p-11 + tiny);
        EXPECT_LE(std::abs(q4[i] - x[i]), top / 8 * rounding + tiny);
      }
    }
}

TEST_F(LayerOpsTest, KvOfZerosAndOfHugeNumbersStaysFinite) {
  for (const KvType type : {KvType::kF16, KvType::kQ8, KvType::kQ4}) {
    EXPECT_EQ(through(ops_, type, std::vector<float>(40, 0)), std::vector<float>(40, 0));
    for (const float value :
         through(ops_, type, {1e30f, -1e30f, 70000, std::numeric_limits<float>::infinity()}))
      EXPECT_TRUE(std::isfinite(value));
  }
}

// An outlying channel, as keys of real models have: turned by Hadamard, the error of 4 bits falls.
TEST_F(LayerOpsTest, HadamardHelpsFourBitsWithOutliers) {
  double plain = 0, turned = 0;
  for (int row = 0; row < 200; ++row) {
    auto x = normals(128);
    x[5] *= 30;
    x[77] *= 20;
    const auto direct = through(ops_, KvType::kQ4, x);
    auto rotated = x;
    ops_.hadamard(rotated);
    rotated = through(ops_, KvType::kQ4, rotated);
    ops_.hadamard(rotated);
    for (size_t i = 0; i < x.size(); ++i) {
      plain += std::pow(direct[i] - x[i], 2);
      turned += std::pow(rotated[i] - x[i], 2);
    }
  }
  EXPECT_LT(turned, plain);
}

}  // namespace
}  // namespace sluice::kernels
