// Where liburing is absent, as on macOS.
#include "io/read_ring.h"

namespace sluice::io {

Result<std::unique_ptr<ReadRing>> make_read_ring(unsigned) {
  return fail(ErrorCode::kUnsupported, "this program was built without io_uring");
}

}  // namespace sluice::io
