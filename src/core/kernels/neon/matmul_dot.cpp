// The products compiled for neon with the dot-product extension of ARMv8.2.
#include "kernels/raw_matmul.h"

#define SLUICE_ISA neon_dot
#include "kernels/neon/matmul_dot_partial.h"
// Only now: they are written in those primitives.
#include "kernels/generic/matmul_lanes.h"
// And this one in those of both.
#include "kernels/generic/matmul_kernels.h"

namespace sluice::kernels {

const RawMatmulOps* neon_dot_matmul_ops() { return &neon_dot::kMatmulOps; }

}  // namespace sluice::kernels
