// Weighted search and error feedback: the promise that weights never make a group worse than MLX's
// own, the identity that the factor stands for, and that feedback lowers what it is for: the error
// of products over inputs that go together.
#include "numerics/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "numerics/affine_weighted.h"
#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

struct Encoded {
  std::vector<std::byte> weight, scales, biases;
  Encoded(size_t elements, const QuantFormat& format, DType dtype)
      : weight(elements / 8 * format.bits),
        scales(elements / format.group_size * dtype_info(dtype).block_bytes),
        biases(scales) {}
  AffineRow view() { return {weight, scales, biases}; }
  ConstAffineRow view() const { return {weight, scales, biases}; }
  bool operator==(const Encoded&) const = default;
};

std::vector<float> normals(size_t count, std::mt19937& random, float scale = 1) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = scale * normal(random);
  return values;
}

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  for (float& value : values) {
    if (dtype == DType::kF16) value = f16_to_f32(f32_to_f16(value));
    if (dtype == DType::kBF16) value = bf16_to_f32(f32_to_bf16(value));
  }
  return values;
}

std::vector<float> decoded(const Encoded& encoded, size_t elements, const QuantFormat& format,
                           DType dtype) {
  std::vector<float> values(elements);
  decode_affine(encoded.view(), format, dtype, values);
  return values;
}

double weighted_error(std::span<const float> source, std::span<const float> found,
                      std::span<const float> importance) {
  double sum = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const double error = static_cast<double>(found[i]) - static_cast<double>(source[i]);
    sum += static_cast<double>(importance[i]) * error * error;
  }
  return sum;
}

template <class Body>
void for_each_format(Body&& body) {
  for (const uint8_t bits : kAffineBits)
    for (const uint16_t group : kAffineGroups)
      for (const DType dtype : kDTypes) body(QuantFormat{QuantMode::kAffine, bits, group}, dtype);
}

TEST(Weighted, NoGroupIsWorseThanMlxsOwn) {
  std::mt19937 random(7);
  for_each_format([&](const QuantFormat& format, DType dtype) {
    for (int round = 0; round < 20; ++round) {
      std::vector<float> row = normals(256, random, 0.05f);
      if (round % 3 == 1) row[round] = 3;  // an outlier
      if (round % 5 == 2) std::fill_n(row.begin(), 128, round % 2 ? 0.25f : 0.0f);
      row = rounded(std::move(row), dtype);
      std::vector<float> importance = normals(256, random);
      for (float& value : importance) value = std::exp(2 * value);
      if (round % 4 == 3) std::fill_n(importance.begin(), 200, 0.0f);
      Encoded parity(256, format, dtype), found(256, format, dtype);
      encode_affine_parity(row, format, dtype, ParityRule::kCpu, parity.view());
      encode_affine_weighted(row, importance, format, dtype, found.view());
      const auto parity_values = decoded(parity, 256, format, dtype);
      const auto found_values = decoded(found, 256, format, dtype);
      for (size_t first = 0; first < 256; first += format.group_size) {
        const auto part = [&](std::span<const float> all) {
          return all.subspan(first, format.group_size);
        };
        EXPECT_LE(weighted_error(part(row), part(found_values), part(importance)),
                  weighted_error(part(row), part(parity_values), part(importance)))
            << format_text(format) << " round " << round << " column " << first;
      }
    }
  });
}

// Weights that differ are met better by those who know them.
TEST(Weighted, LowersTheWeightedErrorBelowThatOfBest) {
  std::mt19937 random(8);
  for (const uint8_t bits : {2, 3, 4}) {
    const QuantFormat format{QuantMode::kAffine, bits, 64};
    double best_error = 0, found_error = 0;
    for (int round = 0; round < 50; ++round) {
      const auto row = rounded(normals(256, random, 0.05f), DType::kBF16);
      std::vector<float> importance = normals(256, random);
      for (float& value : importance) value = std::exp(2 * value);
      Encoded best(256, format, DType::kBF16), found(256, format, DType::kBF16);
      encode_affine_best(row, format, DType::kBF16, best.view());
      encode_affine_weighted(row, importance, format, DType::kBF16, found.view());
      best_error += weighted_error(row, decoded(best, 256, format, DType::kBF16), importance);
      found_error += weighted_error(row, decoded(found, 256, format, DType::kBF16), importance);
    }
    EXPECT_LT(found_error, 0.9 * best_error) << int{bits};
  }
}

// Rows x of inputs that are mixtures of a few, and their moments.
struct Inputs {
  size_t columns = 0;
  std::vector<float> rows = {}, moments = {};
};

Inputs mixed_inputs(size_t columns, size_t sources, size_t count, std::mt19937& random) {
  Inputs inputs{.columns = columns, .rows = std::vector<float>(count * columns)};
  const auto mix = normals(sources * columns, random);
  for (size_t t = 0; t < count; ++t) {
    const auto source = normals(sources, random);
    const auto noise = normals(columns, random, 0.3f);
    for (size_t c = 0; c < columns; ++c) {
      float value = noise[c];
      for (size_t s = 0; s < sources; ++s) value += source[s] * mix[s * columns + c];
      inputs.rows[t * columns + c] = value;
    }
  }
  for (size_t i = 0; i < columns; ++i)
    for (size_t j = i; j < columns; ++j) {
      double sum = 0;
      for (size_t t = 0; t < count; ++t)
        sum += static_cast<double>(inputs.rows[t * columns + i]) *
               static_cast<double>(inputs.rows[t * columns + j]);
      inputs.moments.push_back(static_cast<float>(sum));
    }
  return inputs;
}

// e·H·eᵀ, without and with damping.
double output_error(std::span<const float> source, std::span<const float> found,
                    const Inputs& inputs, double damping = 0) {
  double mean = 0, sum = 0;
  for (size_t i = 0, at = 0; i < inputs.columns; at += inputs.columns - i, ++i)
    mean += static_cast<double>(inputs.moments[at]) / static_cast<double>(inputs.columns);
  for (size_t i = 0, at = 0; i < inputs.columns; ++i)
    for (size_t j = i; j < inputs.columns; ++j, ++at) {
      const double moment = static_cast<double>(inputs.moments[at]) + (i == j ? damping * mean : 0);
      const double a = static_cast<double>(source[i]) - static_cast<double>(found[i]);
      const double b = static_cast<double>(source[j]) - static_cast<double>(found[j]);
      sum += (i == j ? 1 : 2) * moment * a * b;
    }
  return sum;
}

// The error over the inputs, column by column against each column's target.
TEST(Factor, SplitsTheErrorOfProductsByColumns) {
  std::mt19937 random(9);
  for (const size_t columns : {32, 96, 160}) {
    const Inputs inputs = mixed_inputs(columns, 5, 3 * columns, random);
    const FeedbackFactor factor(inputs.moments, columns);
    const auto source = normals(columns, random), found = normals(columns, random);
    double mean = 0, sum = 0;
    for (size_t i = 0, at = 0; i < columns; at += columns - i, ++i)
      mean += static_cast<double>(inputs.moments[at]) / static_cast<double>(columns);
    for (size_t k = 0; k < columns; ++k) {
      double target = static_cast<double>(source[k]);
      for (size_t i = 0; i < k; ++i)
        target += static_cast<double>(source[i] - found[i]) *
                  static_cast<double>(factor.couplings(i)[k - i - 1]);
      const double error = target - static_cast<double>(found[k]);
      sum += static_cast<double>(factor.importance()[k]) * mean * error * error;
    }
    const double expected = output_error(source, found, inputs, kMomentDamping);
    EXPECT_NEAR(sum, expected, 1e-3 * expected) << columns;
  }
}

TEST(Factor, StandsMomentsThatAreZeroOrNotQuiteThoseOfAnything) {
  const std::vector<float> zeros(triangle_elements(64));
  const FeedbackFactor none(zeros, 64);
  for (const float value : none.importance()) EXPECT_EQ(value, 1);
  for (size_t i = 0; i + 1 < 64; ++i)
    for (const float value : none.couplings(i)) EXPECT_EQ(value, 0);
  // Correlations above one: rounding, at its worst.
  std::vector<float> impossible(triangle_elements(64), 2.0f);
  for (size_t i = 0, at = 0; i < 64; at += 64 - i, ++i) impossible[at] = 1;
  const FeedbackFactor factor(impossible, 64);
  for (const float value : factor.importance()) EXPECT_TRUE(std::isfinite(value) && value > 0);
  for (size_t i = 0; i + 1 < 64; ++i)
    for (const float value : factor.couplings(i)) EXPECT_TRUE(std::isfinite(value));
}

TEST(Feedback, LowersTheErrorOfProductsFarBelowThatOfBest) {
  std::mt19937 random(10);
  const Inputs inputs = mixed_inputs(256, 24, 1024, random);
  const FeedbackFactor factor(inputs.moments, 256);
  for (const uint8_t bits : {2, 3, 4, 6}) {
    const QuantFormat format{QuantMode::kAffine, bits, 64};
    const auto rows = rounded(normals(40 * 256, random, 0.05f), DType::kBF16);
    Encoded found(rows.size(), format, DType::kBF16);
    encode_affine_feedback(rows, factor, format, DType::kBF16, found.view());
    const auto values = decoded(found, rows.size(), format, DType::kBF16);
    double best_error = 0, found_error = 0;
    for (size_t r = 0; r < 40; ++r) {
      const std::span<const float> row = std::span(rows).subspan(r * 256, 256);
      Encoded best(256, format, DType::kBF16);
      encode_affine_best(row, format, DType::kBF16, best.view());
      best_error += output_error(row, decoded(best, 256, format, DType::kBF16), inputs);
      found_error += output_error(row, std::span(values).subspan(r * 256, 256), inputs);
    }
    EXPECT_LT(found_error, 0.5 * best_error) << int{bits};
  }
}

// Inputs that do not go together leave nothing to make good.
TEST(Feedback, WithoutCouplingsIsTheWeightedSearch) {
  std::mt19937 random(11);
  std::vector<float> moments(triangle_elements(128));
  for (size_t i = 0, at = 0; i < 128; at += 128 - i, ++i)
    moments[at] = std::exp(static_cast<float>(i % 7) - 3);
  const FeedbackFactor factor(moments, 128);
  for_each_format([&](const QuantFormat& format, DType dtype) {
    const auto row = rounded(normals(128, random), dtype);
    Encoded found(128, format, dtype), weighted(128, format, dtype);
    encode_affine_feedback(row, factor, format, dtype, found.view());
    encode_affine_weighted(row, factor.importance(), format, dtype, weighted.view());
    const double error =
        weighted_error(row, decoded(found, 128, format, dtype), factor.importance());
    const double expected =
        weighted_error(row, decoded(weighted, 128, format, dtype), factor.importance());
    EXPECT_NEAR(error, expected, 1e-6 * expected) << format_text(format);
  });
}

TEST(Feedback, ARowDoesNotDependOnTheRowsBesideIt) {
  std::mt19937 random(12);
  const Inputs inputs = mixed_inputs(128, 9, 300, random);
  const FeedbackFactor factor(inputs.moments, 128);
  for_each_format([&](const QuantFormat& format, DType dtype) {
    constexpr size_t kRows = 37;
    const auto rows = rounded(normals(kRows * 128, random, 0.1f), dtype);
    Encoded together(rows.size(), format, dtype), apart(rows.size(), format, dtype);
    encode_affine_feedback(rows, factor, format, dtype, together.view());
    const size_t weight = apart.weight.size() / kRows, scales = apart.scales.size() / kRows;
    for (size_t r = 0; r < kRows; ++r)
      encode_affine_feedback(std::span(rows).subspan(r * 128, 128), factor, format, dtype,
                             {std::span(apart.weight).subspan(r * weight, weight),
                              std::span(apart.scales).subspan(r * scales, scales),
                              std::span(apart.biases).subspan(r * scales, scales)});
    EXPECT_EQ(together, apart) << format_text(format);
  });
}

TEST(Feedback, RowsAtTheEdgeOfTheTypeStayFinite) {
  std::mt19937 random(13);
  const Inputs inputs = mixed_inputs(128, 2, 200, random);
  const FeedbackFactor factor(inputs.moments, 128, 1e-6);
  for_each_format([&](const QuantFormat& format, DType dtype) {
    for (const float scale : {1e-30f, 1e-7f, 60000.0f, 1e37f}) {
      if (dtype == DType::kF16 && scale > 1e6f) continue;
      std::vector<float> row = normals(128, random);
      for (float& value : row) value = scale * std::tanh(value);
      row = rounded(std::move(row), dtype);
      Encoded found(128, format, dtype);
      encode_affine_feedback(row, factor, format, dtype, found.view());
      for (const float value : decoded(found, 128, format, dtype))
        EXPECT_TRUE(std::isfinite(value)) << format_text(format) << " at " << scale;
    }
  });
}

}  // namespace
}  // namespace sluice::numerics
