// The affine kernels compiled for scalar.
#include "kernels/scalar/simd.h"

#define SLUICE_ISA scalar
#include "kernels/generic/affine_kernels.h"

namespace sluice::kernels {

const RawOps* scalar_ops() { return &scalar::kOps; }

}  // namespace sluice::kernels
