// Devices beside the processor: a Mac's or an NVIDIA card's GPU, over MLX's C++ library. Without
// the library in this build, no_mlx.cpp answers instead.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/cpu.h"
#include "base/error.h"

namespace sluice::runtime {
class Device;
}

namespace sluice::gpu {

enum class DeviceChoice : uint8_t {
  kAuto,  // the GPU where there is one
  kCpu,
  kGpu,
  kMlx,  // MLX wherever it computes, the processor too: for tests
};
Result<DeviceChoice> parse_device(std::string_view name);  // "auto", "cpu", "gpu", "mlx"

// Null: the processor. kUnsupported when a GPU is asked for and there is none, or no MLX in this
// build. simd: for what the device leaves to the processor.
Result<std::shared_ptr<const runtime::Device>> open_device(DeviceChoice choice, SimdLevel simd);

// What the machine's GPU can do; bytes, 0: unknown.
struct GpuFacts {
  std::string name, library;       // "Apple M2 Max", "MLX 0.32.4"
  bool is_gpu = false;             // else MLX computes on the processor
  uint64_t memory_bytes = 0;       // of the machine, or of the card
  uint64_t working_set_bytes = 0;  // that the GPU may use at a time
  uint64_t buffer_bytes_max = 0;   // of one buffer
};
// Nothing where MLX is not in this build.
std::optional<GpuFacts> gpu_facts();

}  // namespace sluice::gpu
