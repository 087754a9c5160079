// Stands in for the AVX2 kernels on other processors.
#include "kernels/raw_layer_ops.h"
#include "kernels/raw_matmul.h"
#include "kernels/raw_ops.h"

namespace sluice::kernels {

const RawOps* avx2_ops() { return nullptr; }
const RawFpOps* avx2_fp_ops() { return nullptr; }
const RawLayerOps* avx2_layer_ops() { return nullptr; }
const RawMatmulOps* avx2_matmul_ops() { return nullptr; }

}  // namespace sluice::kernels
