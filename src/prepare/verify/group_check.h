// The fast half of proving quantized rows: recomputes MLX's rule for stored groups and measures
// what they decode to. Written apart from the kernels that encode, with another way to unpack
// codes, so that a mistake there is not repeated here. It only acquits: a group that it does not
// accept goes to the scalar reference (numerics/affine.h), whose word becomes the finding.
//
// Compiled once per instruction set from group_check_loops.h. Nothing here, and nothing it
// includes, has inline functions, because the linker might keep the copy compiled for the wider
// set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sluice::verify {

enum class StoredType : uint8_t { kF32, kF16, kBF16 };

// What is to be shown of every group beside its figures.
enum class Proof : uint8_t {
  kNone,
  kParityCpu,  // it is what MLX writes, ties to even
  kParityGpu,  // likewise, ties away from zero
  kNotWorse,   // parity_error is MLX's own (cpu rule)
};

// Groups that follow one another in memory, also from row to row. No alignment is needed.
struct StoredGroups {
  const float* source;    // [count × group_size], rounded to the model's type
  const uint8_t* weight;  // [count × group_size·bits/8]
  const uint8_t* scales;  // [count] of type
  const uint8_t* biases;  // [count] of type
  size_t count;
  int bits, group_size;  // of numerics::kAffineBits and kAffineGroups
  StoredType type;
};

// Sums are taken in f64 from left to right, so that squared_error, squared_weight and error_max are
// numerics::affine_row_error's of a row that is this one group, bit for bit.
struct GroupFigures {
  double squared_error, squared_weight, error_max;
  double parity_error;  // kNotWorse; else 0
  bool same;            // kParityCpu, kParityGpu: stored bytes equal MLX's; else true
};

// figures: [groups.count]. Reentrant, no allocation.
using GroupCheck = void (*)(const StoredGroups& groups, Proof proof, GroupFigures* figures);

GroupCheck baseline_group_check();  // what every processor of the architecture has
GroupCheck avx2_group_check();      // null where not built, like the next
GroupCheck avx512_group_check();

}  // namespace sluice::verify
