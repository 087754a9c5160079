// The products compiled for avx512, with its byte products (VNNI).
#include "kernels/raw_matmul.h"

#define SLUICE_ISA avx512
#include "kernels/avx2/matmul_streams.h"
#include "kernels/avx512/matmul_partial.h"

// After the primitives.
#include "kernels/avx512/matmul_block_tiles.h"
#include "kernels/avx512/matmul_lanes.h"
#include "kernels/avx512/matmul_quads_pairs.h"
// And this one in those of all.
#include "kernels/generic/matmul_kernels.h"

namespace sluice::kernels {

const RawMatmulOps* avx512_matmul_ops() {
  return __builtin_cpu_supports("avx512vnni") ? &avx512::kMatmulOps : nullptr;
}

}  // namespace sluice::kernels
