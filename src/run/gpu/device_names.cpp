// The names of devices on the command line.
#include "gpu/gpu_device.h"

namespace sluice::gpu {

Result<DeviceChoice> parse_device(std::string_view name) {
  if (name == "auto") return DeviceChoice::kAuto;
  if (name == "cpu") return DeviceChoice::kCpu;
  if (name == "gpu") return DeviceChoice::kGpu;
  if (name == "mlx") return DeviceChoice::kMlx;
  return fail(ErrorCode::kInvalidArgument, "{} is no device; auto, cpu, gpu and mlx are", name);
}

}  // namespace sluice::gpu
