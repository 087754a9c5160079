// Stands in for the AVX-512 kernels on other processors.
#include "kernels/raw_layer_ops.h"
#include "kernels/raw_matmul.h"
#include "kernels/raw_ops.h"

namespace sluice::kernels {

const RawOps* avx512_ops() { return nullptr; }
const RawFpOps* avx512_fp_ops() { return nullptr; }
const RawLayerOps* avx512_layer_ops() { return nullptr; }
const RawMatmulOps* avx512_matmul_ops() { return nullptr; }
const RawMatmulOps* avx512_vbmi_matmul_ops() { return nullptr; }

}  // namespace sluice::kernels
