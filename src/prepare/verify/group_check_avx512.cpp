// The group check compiled for avx512.
#define SLUICE_CHECK_ISA avx512
#define SLUICE_CHECK_BYTES 64
#include "verify/group_check_loops.h"

namespace sluice::verify {

GroupCheck avx512_group_check() { return &avx512::check_groups; }

}  // namespace sluice::verify
