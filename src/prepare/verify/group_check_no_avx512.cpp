// Stands in for the avx512 group check on other processors.
#include "verify/group_check.h"

namespace sluice::verify {

GroupCheck avx512_group_check() { return nullptr; }

}  // namespace sluice::verify
