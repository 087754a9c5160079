// The products compiled for avx2.
#include "kernels/raw_matmul.h"

#define SLUICE_ISA avx2
#include "kernels/avx2/matmul_partial.h"
#include "kernels/avx2/matmul_streams.h"
// Only now: they are written in those primitives.
#include "kernels/generic/matmul_lanes.h"
// And this one in those of both.
#include "kernels/generic/matmul_kernels.h"

namespace sluice::kernels {

const RawMatmulOps* avx2_matmul_ops() { return &avx2::kMatmulOps; }

}  // namespace sluice::kernels
