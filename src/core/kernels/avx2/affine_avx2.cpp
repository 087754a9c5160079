// The affine kernels compiled for avx2.
#include "kernels/avx2/simd.h"

#define SLUICE_ISA avx2
#include "kernels/generic/affine_kernels.h"

namespace sluice::kernels {

const RawOps* avx2_ops() { return &avx2::kOps; }

}  // namespace sluice::kernels
