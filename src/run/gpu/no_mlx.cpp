// In place of the MLX back-end, in builds without it.
#include "gpu/gpu_device.h"
#include "runtime/step_backend.h"

namespace sluice::gpu {

Result<std::shared_ptr<const runtime::Device>> open_device(DeviceChoice choice, SimdLevel) {
  if (choice == DeviceChoice::kAuto || choice == DeviceChoice::kCpu) return nullptr;
  return fail(ErrorCode::kUnsupported,
              "this sluice was built without MLX, so that it computes on the processor alone; "
              "configured with -DSLUICE_MLX=ON, it can use a GPU (docs/gpu.md)");
}

std::optional<GpuFacts> gpu_facts() { return std::nullopt; }

}  // namespace sluice::gpu
