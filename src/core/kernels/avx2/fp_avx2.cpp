// The kernels of the fp modes compiled for avx2.
#include "kernels/avx2/simd.h"

#define SLUICE_ISA avx2
#include "kernels/generic/fp_kernels.h"

namespace sluice::kernels {

const RawFpOps* avx2_fp_ops() { return &avx2::kFpOps; }

}  // namespace sluice::kernels
