// The layer maths compiled for neon.
#include "kernels/neon/simd.h"

#define SLUICE_ISA neon
#include "kernels/generic/layer_kernels.h"

namespace sluice::kernels {

const RawLayerOps* neon_layer_ops() { return &neon::kLayerOps; }

}  // namespace sluice::kernels
