// The group check compiled for avx2.
#define SLUICE_CHECK_ISA avx2
#define SLUICE_CHECK_BYTES 32
#include "verify/group_check_loops.h"

namespace sluice::verify {

GroupCheck avx2_group_check() { return &avx2::check_groups; }

}  // namespace sluice::verify
