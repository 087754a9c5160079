// Eigenvalues of small symmetric matrices. The facade of Eigen; no other file includes it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace sluice::analyze {

// Of a [n × n], symmetric, row-major; descending.
std::vector<double> symmetric_eigenvalues(std::span<const double> a, size_t n);

// The n largest eigenvalues, about, of a positive semidefinite G of which only Z = G·Ω is known, Ω
// having n columns: those of Nyström's approximation Z·M⁺·Zᵀ, never above G's own. Descending;
// fewer than n when G's rank is less. m: M = Ωᵀ·Z; c: Zᵀ·Z; both [n × n].
std::vector<double> nystrom_eigenvalues(std::span<const double> m, std::span<const double> c,
                                        size_t n);

}  // namespace sluice::analyze
