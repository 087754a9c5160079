// The products compiled for avx512 with its byte products (VNNI), byte permutations (VBMI) and
// matrices of bits (GFNI), which processors have together.
#include "kernels/raw_matmul.h"

#define SLUICE_ISA avx512vbmi
#include "kernels/avx512/matmul_partial.h"
#include "kernels/avx512/matmul_streams.h"

// After the primitives.
#include "kernels/avx512/matmul_block_tiles.h"
#include "kernels/avx512/matmul_lanes.h"
#include "kernels/avx512/matmul_quads_pairs.h"
// And this one in those of all.
#include "kernels/generic/matmul_kernels.h"

namespace sluice::kernels {

const RawMatmulOps* avx512_vbmi_matmul_ops() {
  const bool there = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
                     __builtin_cpu_supports("gfni");
  return there ? &avx512vbmi::kMatmulOps : nullptr;
}

}  // namespace sluice::kernels
