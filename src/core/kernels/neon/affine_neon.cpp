// The affine kernels compiled for neon.
#include "kernels/neon/simd.h"

#define SLUICE_ISA neon
#include "kernels/generic/affine_kernels.h"

namespace sluice::kernels {

const RawOps* neon_ops() { return &neon::kOps; }

}  // namespace sluice::kernels
