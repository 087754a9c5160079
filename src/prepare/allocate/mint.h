// The published data-free method (MINT), re-created from its description: linear NRMSE, depth
// weights 3/2/1, its own candidates, a 9 dB veto, one greedy pass. Kept as a compatibility mode and
// as an independent yardstick for the exact solver. Differences from the original, all forced by
// our analysis, are listed in docs/allocation.md#mint.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocate/problem.h"
#include "base/error.h"

namespace sluice::allocate {

inline constexpr double kMintSqnrFloorDb = 9.0;

// π: 3 for layer 0, 2 for the last, 1 otherwise; 0 for modules that are not quantizable.
std::vector<double> mint_weights(std::span<const Item> items);

// The method's own estimate: ⌈n·b/8⌉ + 4·⌈n/g⌉, and 2n for 16-bit.
uint64_t mint_model_bytes(uint64_t elements, const numerics::QuantFormat& format);

// Parity candidates of mint-v1 that pass the veto; embeddings, head and routers 16-bit alone.
// Option::bytes is the method's own estimate; modules that are not quantizable count as they are.
Result<Problem> mint_problem(std::span<const Item> items, double sqnr_floor_db);

struct MintSolution {
  Choice choice;
  uint64_t model_bytes = 0;
  double cost = 0;
};
// One pass over all upgrades (from each option to the next larger one that is better) in order of
// cost saved per byte. Requires a budget of at least the smallest choice.
MintSolution solve_mint(const Problem& problem, uint64_t budget);

// Of the choice that solve_mint starts from.
uint64_t mint_bytes_min(const Problem& problem);

}  // namespace sluice::allocate
