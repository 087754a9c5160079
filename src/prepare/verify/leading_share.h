// How much of a matrix' energy lies in its eight strongest directions, and how much that would be
// of white noise. Small, on its own, and the same bits on every machine.
#pragma once

#include <cstdint>
#include <span>

namespace sluice::verify {

inline constexpr uint64_t kLeadingDirections = 8;
// Directions that are followed; those beyond eight make the eight come out sooner.
inline constexpr uint64_t kFollowedDirections = 16;

// Σ of the eight largest σ² over Σ of all: never above the true share, and close to it where eight
// directions stand out (four steps of subspace iteration). 0 for an all-zero matrix.
//   matrix  [rows × columns] row-major, finite; rows and columns at least kFollowedDirections
// Threads: reentrant.
double leading_share(std::span<const float> matrix, uint64_t columns);

// 8·(√m+√n)²/(m·n): no singular value of m × n independent errors of one size is above √m+√n.
double white_share(uint64_t rows, uint64_t columns);

}  // namespace sluice::verify
