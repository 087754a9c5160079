// The affine kernels compiled for avx512.
#include "kernels/avx512/simd.h"

#define SLUICE_ISA avx512
#include "kernels/generic/affine_kernels.h"

namespace sluice::kernels {

const RawOps* avx512_ops() { return &avx512::kOps; }

}  // namespace sluice::kernels
