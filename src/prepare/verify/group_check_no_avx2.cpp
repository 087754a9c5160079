// Stands in for the avx2 group check on other processors.
#include "verify/group_check.h"

namespace sluice::verify {

GroupCheck avx2_group_check() { return nullptr; }

}  // namespace sluice::verify
