// Linked into the engine's tests, this makes them run over MLX, on a GPU where there is one.
#include "gpu/gpu_device.h"
#include "runtime/engines.h"

namespace sluice::runtime {
namespace {

[[maybe_unused]] const bool chosen = [] {
  auto device = gpu::open_device(gpu::DeviceChoice::kMlx, test::widest_simd());
  SLUICE_CHECK(device.has_value());
  test_device = std::move(*device);
  return true;
}();

}  // namespace
}  // namespace sluice::runtime
