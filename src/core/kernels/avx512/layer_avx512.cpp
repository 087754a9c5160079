// The layer maths compiled for avx512.
#include "kernels/avx512/simd.h"

#define SLUICE_ISA avx512
#include "kernels/generic/layer_kernels.h"

namespace sluice::kernels {

const RawLayerOps* avx512_layer_ops() { return &avx512::kLayerOps; }

}  // namespace sluice::kernels
