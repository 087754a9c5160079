// The products compiled for neon without extensions, and the choice between them and those with.
#include "kernels/raw_matmul.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#define SLUICE_ISA neon
#include "kernels/neon/matmul_partial.h"
// Only now: they are written in those primitives.
#include "kernels/generic/matmul_lanes.h"
// And this one in those of both.
#include "kernels/generic/matmul_kernels.h"

namespace sluice::kernels {
namespace {

// Every Apple processor with macOS has the extension.
bool has_dot_product() {
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1UL << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#else
  return true;
#endif
}

}  // namespace

const RawMatmulOps* neon_matmul_ops() {
  return has_dot_product() ? neon_dot_matmul_ops() : &neon::kMatmulOps;
}

}  // namespace sluice::kernels
