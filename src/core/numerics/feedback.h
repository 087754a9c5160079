// Error feedback: codes are chosen column after column, and each column's error is made good, as
// far as the module's inputs go together, by the columns after it. What counts is the error of the
// product W·x over recorded inputs x, e·H·eᵀ for a row's error e and the inputs' second moments
// H = Σ x·xᵀ, not the error of the weights. Source: OBQ and GPTQ (Frantar et al., 2022), written
// with a triangular factor of H itself, which needs no inverse. Scalar reference; layout and
// loaders are those of numerics/affine.h.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "numerics/affine.h"

namespace sluice::numerics {

// Added to the diagonal, in parts of its mean: inputs that never showed themselves in the record
// still count, and the factor exists.
inline constexpr double kMomentDamping = 0.01;

// Elements of the upper triangle, row after row: (0,0), (0,1), …, (1,1), ….
constexpr size_t triangle_elements(size_t columns) { return columns * (columns + 1) / 2; }

// H = R·Rᵀ, R upper triangular. With t[k] = w[k] + Σ_{i<k} e[i]·R[i][k]/R[k][k], where e is source
// minus decoded, e·H·eᵀ is Σ_k R[k][k]²·(t[k] − decoded[k])²: one column after the other, each has
// a target and an importance of its own. Immutable; thread-safe.
class FeedbackFactor {
 public:
  // moments: the upper triangle of H, finite, its diagonal ≥ 0. Rounding that makes H indefinite is
  // met by more damping; all-zero moments count as all alike. Memory while it is made: twelve bytes
  // for each element of the triangle, then four. columns: a multiple of 32.
  FeedbackFactor(std::span<const float> moments, size_t columns, double damping = kMomentDamping);

  size_t columns() const { return importance_.size(); }
  std::span<const float> importance() const { return importance_; }  // R[k][k]²
  // R[i][k]/R[k][k] for k = i + 1 … columns − 1.
  std::span<const float> couplings(size_t i) const {
    return std::span(couplings_).subspan(row_start(i), columns() - i - 1);
  }
  static constexpr uint64_t bytes(uint64_t columns) { return columns * (columns + 1) / 2 * 4; }
  static constexpr uint64_t making_bytes(uint64_t columns) { return 3 * bytes(columns); }

 private:
  size_t row_start(size_t i) const { return i * (2 * columns() - i - 1) / 2; }

  std::vector<float> importance_, couplings_;
};

// Encodes rows one after another; each row's bytes depend on it and the factor alone. A group's
// scale and bias are those that the weighted search finds for its targets when its turn comes.
//   rows: [count × columns] finite values, as encode_affine_best takes them
//   out: all rows' weight, scales and biases
// Arithmetic is f32, rounded after every operation, in a fixed order; searches as in
// numerics/affine_weighted.h.
void encode_affine_feedback(std::span<const float> rows, const FeedbackFactor& factor,
                            const QuantFormat& format, DType dtype, const AffineRow& out);

}  // namespace sluice::numerics
