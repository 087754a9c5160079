#include "verify/leading_share.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "base/error.h"

namespace sluice::verify {
namespace {

constexpr size_t kWidth = kFollowedDirections;
constexpr int kSteps = 4;
// Columns whose sums stay in the first cache while all rows pass.
constexpr uint64_t kTile = 64;

// One lane for each direction; lanes do not mix, so that every register width gives the same bits.
typedef float Lanes __attribute__((vector_size(kWidth * sizeof(float))));
using Square = std::array<std::array<double, kWidth>, kWidth>;

void load(const float* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }

struct Matrix {
  std::span<const float> values;
  uint64_t rows = 0, columns = 0;
  float factor = 1;  // brings the mean square to 1, so that f32 neither overflows nor vanishes
};

// ±1 for a place, the top bit of a mixed counter (splitmix64).
float sign_at(uint64_t place) {
  uint64_t x = (place + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return ((x ^ (x >> 31)) >> 63) != 0 ? -1.0f : 1.0f;
}

// out [rows × kWidth] = A · right [columns × kWidth].
void multiply(const Matrix& a, const std::vector<float>& right, std::vector<float>& out) {
  for (uint64_t row = 0; row < a.rows; ++row) {
    const float* values = a.values.data() + row * a.columns;
    Lanes sum = {};
    for (uint64_t k = 0; k < a.columns; ++k) {
      Lanes lanes;
      load(right.data() + k * kWidth, lanes);
      sum += lanes * (values[k] * a.factor);
    }
    std::memcpy(out.data() + row * kWidth, &sum, sizeof sum);
  }
}

// out [columns × kWidth] = Aᵀ · left [rows × kWidth].
void multiply_transposed(const Matrix& a, const std::vector<float>& left, std::vector<float>& out) {
  std::ranges::fill(out, 0.0f);
  for (uint64_t start = 0; start < a.columns; start += kTile) {
    const uint64_t end = std::min(start + kTile, a.columns);
    for (uint64_t row = 0; row < a.rows; ++row) {
      const float* values = a.values.data() + row * a.columns;
      Lanes lanes;
      load(left.data() + row * kWidth, lanes);
      for (uint64_t k = start; k < end; ++k) {
        Lanes sum;
        load(out.data() + k * kWidth, sum);
        sum += lanes * (values[k] * a.factor);
        std::memcpy(out.data() + k * kWidth, &sum, sizeof sum);
      }
    }
  }
}

// Mᵀ·M of M [rows × kWidth].
Square gram(const std::vector<float>& m) {
  Square sums{};
  for (size_t start = 0; start < m.size(); start += kWidth)
    for (size_t i = 0; i < kWidth; ++i)
      for (size_t j = 0; j <= i; ++j) sums[i][j] += double{m[start + i]} * double{m[start + j]};
  for (size_t i = 0; i < kWidth; ++i)
    for (size_t j = 0; j < i; ++j) sums[j][i] = sums[i][j];
  return sums;
}

// Makes the columns of M [rows × kWidth] orthonormal, by Cholesky's factor of MᵀM. Columns that
// depend on earlier ones become zero.
void orthonormalize(std::vector<float>& m) {
  Square factor = gram(m);
  std::array<double, kWidth> inverse{};
  constexpr double kDependent = 1e-11;  // of f64 sums of f32 products
  for (size_t j = 0; j < kWidth; ++j) {
    const double before = factor[j][j];
    for (size_t k = 0; k < j; ++k) factor[j][j] -= factor[j][k] * factor[j][k];
    if (!(factor[j][j] > kDependent * before)) {
      for (size_t i = j; i < kWidth; ++i) factor[i][j] = 0;
      continue;
    }
    inverse[j] = 1 / std::sqrt(factor[j][j]);
    for (size_t i = j + 1; i < kWidth; ++i) {
      for (size_t k = 0; k < j; ++k) factor[i][j] -= factor[i][k] * factor[j][k];
      factor[i][j] *= inverse[j];
    }
  }
  for (size_t start = 0; start < m.size(); start += kWidth) {
    std::array<double, kWidth> row;
    for (size_t j = 0; j < kWidth; ++j) {
      row[j] = m[start + j];
      for (size_t k = 0; k < j; ++k) row[j] -= factor[j][k] * row[k];
      row[j] *= inverse[j];
      m[start + j] = static_cast<float>(row[j]);
    }
  }
}

// Of a symmetric matrix, by Jacobi's rotations; descending.
std::array<double, kWidth> eigenvalues(Square a) {
  constexpr int kSweeps = 12;
  for (int sweep = 0; sweep < kSweeps; ++sweep)
    for (size_t p = 0; p < kWidth; ++p)
      for (size_t q = p + 1; q < kWidth; ++q) {
        if (a[p][q] == 0) continue;
        const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const double tangent =
            (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double cosine = 1 / std::sqrt(tangent * tangent + 1), sine = tangent * cosine;
        for (size_t k = 0; k < kWidth; ++k) {
          const double left = a[k][p], right = a[k][q];
          a[k][p] = cosine * left - sine * right;
          a[k][q] = sine * left + cosine * right;
        }
        for (size_t k = 0; k < kWidth; ++k) {
          const double left = a[p][k], right = a[q][k];
          a[p][k] = cosine * left - sine * right;
          a[q][k] = sine * left + cosine * right;
        }
      }
  std::array<double, kWidth> values;
  for (size_t i = 0; i < kWidth; ++i) values[i] = a[i][i];
  std::ranges::sort(values, std::ranges::greater());
  return values;
}

}  // namespace

double leading_share(std::span<const float> values, uint64_t columns) {
  SLUICE_CHECK(columns >= kWidth && values.size() % columns == 0);
  Matrix a{values, values.size() / columns, columns};
  SLUICE_CHECK(a.rows >= kWidth);
  double energy = 0;
  for (const float value : values) energy += double{value} * double{value};
  if (!(energy > 0)) return 0;
  const auto count = static_cast<double>(values.size());
  a.factor = static_cast<float>(1 / std::sqrt(energy / count));
  if (!std::isfinite(a.factor)) return 0;
  std::vector<float> right(columns * kWidth), left(a.rows * kWidth);
  for (size_t i = 0; i < right.size(); ++i) right[i] = sign_at(i);
  for (int step = 0; step < kSteps; ++step) {
    multiply(a, right, left);
    multiply_transposed(a, left, right);
    orthonormalize(right);
  }
  multiply(a, right, left);
  const std::array<double, kWidth> found = eigenvalues(gram(left));
  double leading = 0;
  for (size_t i = 0; i < kLeadingDirections; ++i) leading += found[i];
  return std::clamp(leading / count, 0.0, 1.0);
}

double white_share(uint64_t rows, uint64_t columns) {
  const auto m = static_cast<double>(rows), n = static_cast<double>(columns);
  const double edge = std::sqrt(m) + std::sqrt(n);
  return kLeadingDirections * edge * edge / (m * n);
}

}  // namespace sluice::verify
