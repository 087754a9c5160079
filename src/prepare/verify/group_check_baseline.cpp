// The group check compiled for baseline.
#define SLUICE_CHECK_ISA baseline
#define SLUICE_CHECK_BYTES 16
#include "verify/group_check_loops.h"

namespace sluice::verify {

GroupCheck baseline_group_check() { return &baseline::check_groups; }

}  // namespace sluice::verify
