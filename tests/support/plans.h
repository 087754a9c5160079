// Plans without analysis, for tests of conversion and verification: every encoder and several
// formats in one model.
#pragma once

#include <functional>

#include "allocate/plan.h"
#include "families/recipe.h"
#include "io/checkpoint.h"

namespace sluice::test {

struct Planned {
  numerics::QuantFormat format;
  numerics::Encoder encoder = numerics::Encoder::kCast;
};
using Choose = std::function<Planned(const families::OutputModule& module, size_t index)>;

inline constexpr numerics::QuantFormat affine(uint8_t bits, uint16_t group) {
  return {numerics::QuantMode::kAffine, bits, group};
}

// A plan that takes exactly its budget. choose is asked about quantizable modules only.
allocate::Plan plan_of(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                       const Choose& choose, const std::string& parity = "cpu");

// Cycles through parity, best and cast at several formats; lossless too where the source allows it.
allocate::Plan mixed_plan(const io::Checkpoint& checkpoint, const families::ModelMap& map);

}  // namespace sluice::test
