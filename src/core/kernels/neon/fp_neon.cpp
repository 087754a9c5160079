// The kernels of the fp modes compiled for neon.
#include "kernels/neon/simd.h"

#define SLUICE_ISA neon
#include "kernels/generic/fp_kernels.h"

namespace sluice::kernels {

const RawFpOps* neon_fp_ops() { return &neon::kFpOps; }

}  // namespace sluice::kernels
