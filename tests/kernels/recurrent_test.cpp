// The recurrences of linear attention against plain formulas in double precision, among them the
// chunked form of the delta rule, which computes the same by other means; and that cutting rows
// into calls changes no bit.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/layer_ops.h"
#include "support/seed.h"

namespace sluice::kernels {
namespace {

using Matrix = std::vector<std::vector<double>>;

class RecurrentTest : public testing::Test {
 protected:
  std::vector<float> normals(size_t count, float size = 1) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> x(count);
    for (float& value : x) value = normal(random_);
    return x;
  }
  std::mt19937_64 random_{test::seed()};
  const LayerOps& ops_ = layer_ops(detect_cpu().simd);
};

TEST_F(RecurrentTest, L2NormAddsEpsilonToTheSum) {
  const auto x = normals(100, 0.01f);
  std::vector<float> out = x;
  ops_.l2_norm(out, 1e-3f, 0.5f);
  double sum = 1e-3;
  for (const float value : x) sum += double{value} * value;
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], 0.5 * x[i] / std::sqrt(sum), 1e-6);
}

TEST_F(RecurrentTest, DecayOfTheWholeRange) {
  std::vector<float> a, a_log, bias;
  for (float x = -100; x <= 100; x += 0.37f)
    for (const float log : {-6.0f, -1.0f, 0.0f, 2.7f}) {
      a.push_back(x);
      a_log.push_back(log);
      bias.push_back(0.3f);
    }
  std::vector<float> out(a.size());
  ops_.delta_decay(a, a_log, bias, out);
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = double{a[i]} + double{bias[i]};
    const double softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    const double exponent = -std::exp(double{a_log[i]}) * softplus;
    // An error of the exponent is one of the result, relative to it.
    EXPECT_NEAR(out[i], std::exp(exponent), (1 - exponent) * 1e-6 * std::exp(exponent) + 1e-37)
        << x << ", " << a_log[i];
  }
}

TEST_F(RecurrentTest, ConvolutionOfEachChannel) {
  constexpr size_t kRows = 9, kChannels = 21, kTaps = 4;
  const auto x = normals(kRows * kChannels), weight = normals(kChannels * kTaps);
  const auto before = normals((kTaps - 1) * kChannels), bias = normals(kChannels);
  std::vector<float> out = x, after(before.size());
  ops_.convolve({out.data(), kChannels, kRows, kChannels, weight.data(), bias.data(), kTaps,
                 before.data(), after.data(), kChannels});
  const auto row_at = [&](ptrdiff_t row, size_t channel) {
    return row < 0 ? before[static_cast<size_t>(row + 3) * kChannels + channel]
                   : x[static_cast<size_t>(row) * kChannels + channel];
  };
  for (ptrdiff_t row = 0; row < ptrdiff_t{kRows}; ++row)
    for (size_t channel = 0; channel < kChannels; ++channel) {
      double sum = bias[channel];
      for (size_t tap = 0; tap < kTaps; ++tap)
        sum += double{weight[channel * kTaps + tap]} *
               row_at(row - 3 + static_cast<ptrdiff_t>(tap), channel);
      EXPECT_NEAR(out[static_cast<size_t>(row) * kChannels + channel], sum / (1 + std::exp(-sum)),
                  1e-5);
    }
  for (size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i], x[(kRows - 3) * kChannels + i]);
}

struct Delta {
  size_t rows = 0, key_dim = 0, columns = 0;
  std::vector<float> q = {}, k = {}, v = {}, beta = {}, decay = {};
  std::vector<float> out = {}, state = {};

  void run(const LayerOps& ops, size_t piece) {
    out.assign(rows * columns, 0);
    state.assign(key_dim * kDeltaColumns, 0);
    for (size_t row = 0; row < rows; row += piece)
      ops.delta_rule({q.data() + row * key_dim, k.data() + row * key_dim, key_dim,
                      v.data() + row * columns, columns, beta.data() + row, decay.data() + row, 1,
                      out.data() + row * columns, columns, std::min(piece, rows - row), key_dim,
                      columns, row == 0 ? nullptr : state.data(), state.data()});
  }
};

// The chunked form of Yang et al., Gated Delta Networks, in doubles: within a chunk the products of
// keys and queries, between chunks the state.
Matrix chunked(const Delta& d, size_t chunk, Matrix& state) {
  const auto dot = [&](const std::vector<float>& x, size_t i, const std::vector<float>& y,
                       size_t j) {
    double sum = 0;
    for (size_t n = 0; n < d.key_dim; ++n)
      sum += double{x[i * d.key_dim + n]} * y[j * d.key_dim + n];
    return sum;
  };
  Matrix out;
  state.assign(d.key_dim, std::vector<double>(d.columns));
  for (size_t first = 0; first < d.rows; first += chunk) {
    const size_t count = std::min(chunk, d.rows - first);
    std::vector<double> log_decay(count);
    for (size_t i = 0; i < count; ++i)
      log_decay[i] = std::log(double{d.decay[first + i]}) + (i > 0 ? log_decay[i - 1] : 0);
    // Rows of V' by forward substitution: v'_i = β_i (v_i − e^Γi Sᵀk_i − Σ_j<i (k_i·k_j) D_ij
    // v'_j).
    Matrix delta(count, std::vector<double>(d.columns));
    for (size_t i = 0; i < count; ++i)
      for (size_t c = 0; c < d.columns; ++c) {
        double rest = d.v[(first + i) * d.columns + c];
        for (size_t n = 0; n < d.key_dim; ++n)
          rest -= std::exp(log_decay[i]) * state[n][c] * d.k[(first + i) * d.key_dim + n];
        for (size_t j = 0; j < i; ++j)
          rest -= dot(d.k, first + i, d.k, first + j) * std::exp(log_decay[i] - log_decay[j]) *
                  delta[j][c];
        delta[i][c] = d.beta[first + i] * rest;
      }
    for (size_t i = 0; i < count; ++i) {
      out.emplace_back(d.columns);
      for (size_t c = 0; c < d.columns; ++c) {
        double sum = 0;
        for (size_t n = 0; n < d.key_dim; ++n)
          sum += std::exp(log_decay[i]) * d.q[(first + i) * d.key_dim + n] * state[n][c];
        for (size_t j = 0; j <= i; ++j)
          sum += dot(d.q, first + i, d.k, first + j) * std::exp(log_decay[i] - log_decay[j]) *
                 delta[j][c];
        out.back()[c] = sum;
      }
    }
    for (size_t n = 0; n < d.key_dim; ++n)
      for (size_t c = 0; c < d.columns; ++c) {
        double sum = std::exp(log_decay[count - 1]) * state[n][c];
        for (size_t j = 0; j < count; ++j)
          sum += std::exp(log_decay[count - 1] - log_decay[j]) * d.k[(first + j) * d.key_dim + n] *
                 delta[j][c];
        state[n][c] = sum;
      }
  }
  return out;
}

TEST_F(RecurrentTest, DeltaRuleIsItsChunkedForm) {
  for (const size_t rows : {1, 63, 64, 65, 130}) {
    Delta d{.rows = rows, .key_dim = 24, .columns = 20};
    d.q = normals(rows * d.key_dim);
    d.k = normals(rows * d.key_dim);
    d.v = normals(rows * d.columns);
    for (size_t row = 0; row < rows; ++row) {
      ops_.l2_norm(std::span(d.k).subspan(row * d.key_dim, d.key_dim), 1e-6f, 1);
      ops_.l2_norm(std::span(d.q).subspan(row * d.key_dim, d.key_dim), 1e-6f, 0.2f);
      d.beta.push_back(std::uniform_real_distribution<float>(0, 1)(random_));
      d.decay.push_back(std::uniform_real_distribution<float>(0.3f, 1)(random_));
    }
    d.run(ops_, rows);
    Matrix state;
    const Matrix expected = chunked(d, 64, state);
    for (size_t row = 0; row < rows; ++row)
      for (size_t c = 0; c < d.columns; ++c)
        EXPECT_NEAR(d.out[row * d.columns + c], expected[row][c], 1e-5) << rows << ": " << row;
    for (size_t n = 0; n < d.key_dim; ++n)
      for (size_t c = 0; c < d.columns; ++c)
        EXPECT_NEAR(d.state[n * kDeltaColumns + c], state[n][c], 1e-5);
    const auto whole = d.out, whole_state = d.state;
    for (const size_t piece : {1, 7, 64}) {
      d.run(ops_, piece);
      EXPECT_EQ(d.out, whole) << piece;
      EXPECT_EQ(d.state, whole_state) << piece;
    }
  }
}

TEST_F(RecurrentTest, StepsAndTheirDecay) {
  std::vector<float> x, a_log, bias;
  for (float value = -40; value <= 40; value += 0.31f)
    for (const float log : {-3.0f, 0.0f, 2.5f}) {
      x.push_back(value);
      a_log.push_back(log);
      bias.push_back(-0.4f);
    }
  std::vector<float> steps(x.size()), decay(x.size());
  for (const auto& [low, high] : {std::pair(0.0f, HUGE_VALF), {0.001f, 5.0f}}) {
    ops_.softplus(x, bias, low, high, steps);
    ops_.step_decay(steps, a_log, decay);
    for (size_t i = 0; i < x.size(); ++i) {
      const double sum = double{x[i]} + double{bias[i]};
      const double softplus = std::max(sum, 0.0) + std::log1p(std::exp(-std::abs(sum)));
      const double step = std::clamp<double>(softplus, low, high);
      EXPECT_NEAR(steps[i], step, 3e-6 * step) << x[i];
      const double exponent = -std::exp(double{a_log[i]}) * step;
      EXPECT_NEAR(decay[i], std::exp(exponent), (1 - exponent) * 1e-6 * std::exp(exponent) + 1e-37)
          << x[i] << ", " << a_log[i];
    }
  }
  ops_.softplus(std::vector<float>{std::nanf("")}, std::vector<float>{0}, 0, 1,
                std::span(steps).first(1));
  EXPECT_TRUE(std::isnan(steps[0]));
}

TEST_F(RecurrentTest, StateSpaceIsItsRecurrence) {
  constexpr size_t kRows = 70, kStateDim = 24, kColumns = 20;
  const auto b = normals(kRows * kStateDim), c = normals(kRows * kStateDim);
  const auto x = normals(kRows * kColumns);
  std::vector<float> step(kRows), decay(kRows);
  for (float& value : step) value = std::uniform_real_distribution<float>(0.01f, 2)(random_);
  for (float& value : decay) value = std::uniform_real_distribution<float>(0.1f, 1)(random_);
  const float skip = 0.7f;
  std::vector<float> out, state;
  const auto run = [&](size_t piece) {
    out.assign(kRows * kColumns, 0);
    state.assign(kStateDim * kDeltaColumns, 0);
    for (size_t row = 0; row < kRows; row += piece)
      ops_.state_space({c.data() + row * kStateDim, b.data() + row * kStateDim, kStateDim,
                        x.data() + row * kColumns, kColumns, step.data() + row, decay.data() + row,
                        1, out.data() + row * kColumns, kColumns, std::min(piece, kRows - row),
                        kStateDim, kColumns, row == 0 ? nullptr : state.data(), state.data()},
                       skip);
  };
  run(kRows);
  Matrix expected(kStateDim, std::vector<double>(kColumns));
  for (size_t row = 0; row < kRows; ++row)
    for (size_t column = 0; column < kColumns; ++column) {
      const double in = x[row * kColumns + column];
      double sum = skip * in;
      for (size_t n = 0; n < kStateDim; ++n) {
        double& element = expected[n][column];
        element = element * decay[row] + double{b[row * kStateDim + n]} * step[row] * in;
        sum += element * c[row * kStateDim + n];
      }
      EXPECT_NEAR(out[row * kColumns + column], sum, 1e-4) << row;
    }
  for (size_t n = 0; n < kStateDim; ++n)
    for (size_t column = 0; column < kColumns; ++column)
      EXPECT_NEAR(state[n * kDeltaColumns + column], expected[n][column], 2e-5);
  const auto whole = out, whole_state = state;
  for (const size_t piece : {1, 7, 64}) {
    run(piece);
    EXPECT_EQ(out, whole) << piece;
    EXPECT_EQ(state, whole_state) << piece;
  }
}

}  // namespace
}  // namespace sluice::kernels
