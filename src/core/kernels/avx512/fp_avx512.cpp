// The kernels of the fp modes compiled for avx512.
#include "kernels/avx512/simd.h"

#define SLUICE_ISA avx512
#include "kernels/generic/fp_kernels.h"

namespace sluice::kernels {

const RawFpOps* avx512_fp_ops() { return &avx512::kFpOps; }

}  // namespace sluice::kernels
