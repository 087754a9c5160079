// Uniform plans, as mlx_lm.convert makes them: one format for every quantizable module. They are
// the yardstick: no plan is returned that is worse than one of no more bytes.
#pragma once

#include <span>
#include <vector>

#include "allocate/candidate.h"
#include "allocate/problem.h"

namespace sluice::allocate {

struct UniformChoice {
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kParity;
  Choice choice;
  uint32_t fallback_modules = 0;
};

// One per quantized format and encoder that at least one item offers, in order of format, parity
// first. A module that cannot take the format gets, in this order: the same width at a smaller
// group, the same width at a larger one, unquantized. A module with a bits_floor above the format's
// width, or any under an fp mode, gets that floor at group 64 (mlx_lm's own rule for routers), or
// at another group. `best` falls back to `parity` where analysis priced no best candidate.
std::vector<UniformChoice> uniform_choices(std::span<const Item> items);

}  // namespace sluice::allocate
