// The layer maths compiled for scalar.
#include "kernels/scalar/simd.h"

#define SLUICE_ISA scalar
#include "kernels/generic/layer_kernels.h"

namespace sluice::kernels {

const RawLayerOps* scalar_layer_ops() { return &scalar::kLayerOps; }

}  // namespace sluice::kernels
