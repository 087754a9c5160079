// The layer maths compiled for avx2.
#include "kernels/avx2/simd.h"

#define SLUICE_ISA avx2
#include "kernels/generic/layer_kernels.h"

namespace sluice::kernels {

const RawLayerOps* avx2_layer_ops() { return &avx2::kLayerOps; }

}  // namespace sluice::kernels
