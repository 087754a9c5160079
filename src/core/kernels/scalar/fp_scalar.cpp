// The kernels of the fp modes compiled for scalar.
#include "kernels/scalar/simd.h"

#define SLUICE_ISA scalar
#include "kernels/generic/fp_kernels.h"

namespace sluice::kernels {

const RawFpOps* scalar_fp_ops() { return &scalar::kFpOps; }

}  // namespace sluice::kernels
