// Products of weights with activations, counted, and the time that a processor would need for them
// were multiplying all there is to do.
#pragma once

#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "runtime/engine.h"

namespace sluice::runtime {

inline uint64_t& count_of(ProductCounts& counts, kernels::Activations activations) {
  switch (activations) {
    case kernels::Activations::kF32: return counts.f32;
    case kernels::Activations::kI16: return counts.i16;
    case kernels::Activations::kI8: break;
  }
  return counts.i8;
}

// Measured now, on all threads of the pool, some 10 ms for each kind that there is. 0: the table
// has no instructions to go by.
double seconds_at_peak(const ProductCounts& counts, const kernels::MatmulTable& matmul,
                       ThreadPool& pool);

}  // namespace sluice::runtime
