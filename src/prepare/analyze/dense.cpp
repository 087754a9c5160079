#include "analyze/dense.h"

#include <algorithm>

// One order of additions on every machine; these matrices are small.
#define EIGEN_DONT_VECTORIZE
#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#include <Eigen/Dense>

#include "base/error.h"

namespace sluice::analyze {
namespace {

// Directions in which M is smaller than this part of its largest are noise of the f32 products.
constexpr double kNoise = 1e-6;

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Eigen::Map<const Matrix> as_matrix(std::span<const double> values, size_t n) {
  SLUICE_CHECK(values.size() == n * n);
  return {values.data(), static_cast<Eigen::Index>(n), static_cast<Eigen::Index>(n)};
}

std::vector<double> descending(const Eigen::VectorXd& values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::reverse(sorted);  // Eigen's ascend
  return sorted;
}

}  // namespace

std::vector<double> symmetric_eigenvalues(std::span<const double> a, size_t n) {
  if (n == 0) return {};
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(as_matrix(a, n), Eigen::EigenvaluesOnly);
  return descending(solver.eigenvalues());
}

std::vector<double> nystrom_eigenvalues(std::span<const double> m, std::span<const double> c,
                                        size_t n) {
  if (n == 0) return {};
  const Matrix symmetric = (as_matrix(m, n) + as_matrix(m, n).transpose()) / 2;
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(symmetric);
  const Eigen::VectorXd& values = solver.eigenvalues();
  const double largest = values(values.size() - 1);
  if (!(largest > 0)) return {};
  const Eigen::Index kept = (values.array() > kNoise * largest).count();
  const Matrix basis = solver.eigenvectors().rightCols(kept) *
                       values.tail(kept).cwiseSqrt().cwiseInverse().asDiagonal();
  const Matrix projected = basis.transpose() * as_matrix(c, n) * basis;
  const Eigen::SelfAdjointEigenSolver<Matrix> result(projected, Eigen::EigenvaluesOnly);
  return descending(result.eigenvalues());
}

}  // namespace sluice::analyze
