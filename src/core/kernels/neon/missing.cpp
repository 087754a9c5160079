// Stands in for the NEON kernels on other processors.
#include "kernels/raw_layer_ops.h"
#include "kernels/raw_matmul.h"
#include "kernels/raw_ops.h"

namespace sluice::kernels {

const RawOps* neon_ops() { return nullptr; }
const RawFpOps* neon_fp_ops() { return nullptr; }
const RawLayerOps* neon_layer_ops() { return nullptr; }
const RawMatmulOps* neon_matmul_ops() { return nullptr; }

}  // namespace sluice::kernels
