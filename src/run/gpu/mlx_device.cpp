// The device itself: whether MLX has a GPU here, what it can run, and what it may take.
#include "gpu/gpu_device.h"
#include "gpu/mlx_backend.h"

namespace sluice::gpu {

using runtime::ActivationChoice;
using runtime::KvType;

namespace {

template <class T>
std::optional<T> fact(mx::Device device, const std::string& key) {
  const auto& facts = mx::device_info(device);
  const auto found = facts.find(key);
  if (found == facts.end() || !std::holds_alternative<T>(found->second)) return std::nullopt;
  return std::get<T>(found->second);
}

GpuFacts facts_of(mx::Device device) {
  GpuFacts facts;
  facts.library = std::string("MLX ") + mx::version();
  facts.is_gpu = device == mx::Device::gpu;
  facts.name = fact<std::string>(device, "device_name").value_or("");
  if (facts.name.empty()) facts.name = facts.is_gpu ? "GPU" : "processor";
  const auto bytes = [&](const char* key) { return fact<size_t>(device, key).value_or(0); };
  facts.memory_bytes = bytes("memory_size");
  if (facts.memory_bytes == 0) facts.memory_bytes = bytes("total_memory");
  facts.working_set_bytes = bytes("max_recommended_working_set_size");
  facts.buffer_bytes_max = bytes("max_buffer_length");
  return facts;
}

bool has_gpu() { return mx::is_available(mx::Device(mx::Device::gpu)); }

mx::Device best_device() {
  return has_gpu() ? mx::Device(mx::Device::gpu) : mx::Device(mx::Device::cpu);
}

class MlxDevice : public runtime::Device {
 public:
  MlxDevice(mx::Device device, SimdLevel simd)
      : device_(device), simd_(simd), facts_(facts_of(device)) {
    // What is in use stays in memory, where the system lets a program say so.
    if (facts_.working_set_bytes > 0) mx::set_wired_limit(facts_.working_set_bytes);
  }

  std::string name() const override { return facts_.is_gpu ? facts_.name : "MLX on the processor"; }
  uint64_t memory_bytes_max() const override { return facts_.working_set_bytes; }
  const runtime::MemorySource& memory() const override { return memory_; }

  Status check(const model::ModelConfig& config, const runtime::WeightStore& weights,
               const runtime::EngineOptions& options) const override {
    if (options.kv != KvType::kF16 && options.kv != KvType::kF32)
      return fail(ErrorCode::kUnsupported,
                  "keys and values of {} are for --device cpu; the GPU keeps them as f16 or f32",
                  runtime::kv_type_name(options.kv));
    if (options.activations == ActivationChoice::kI8)
      return fail(ErrorCode::kUnsupported,
                  "--activations i8 is for --device cpu; the GPU multiplies floats");
    for (const runtime::WeightEntry& entry : weights.entries())
      if (const std::string type = unsupported_format(entry.format); !type.empty())
        return fail(ErrorCode::kUnsupported,
                    "{}: MLX has no product with weights of type {} ({}); --device cpu has, and "
                    "`sluice fit` makes a model of it that the GPU can run",
                    config.family, type, entry.name);
    return check_sizes(weights);
  }

  std::unique_ptr<runtime::StepBackend> make(const runtime::WeightStore& weights,
                                             const runtime::EngineOptions& options) const override {
    return std::make_unique<MlxBackend>(weights, memory_, device_,
                                        options.activations == ActivationChoice::kF32, simd_);
  }

 private:
  // MLX counts along an axis in 32 bits.
  static Status check_sizes(const runtime::WeightStore& weights) {
    for (const runtime::WeightEntry& entry : weights.entries())
      if (entry.rows > INT32_MAX || entry.columns > INT32_MAX)
        return fail(ErrorCode::kUnsupported, "{} is too large for the GPU: {} · {} elements",
                    entry.name, entry.rows, entry.columns);
    return {};
  }

  const mx::Device device_;
  const SimdLevel simd_;
  const GpuFacts facts_;
  MlxMemory memory_;
};

}  // namespace

Result<std::shared_ptr<const runtime::Device>> open_device(DeviceChoice choice, SimdLevel simd) {
  try {
    if (choice == DeviceChoice::kCpu || (choice == DeviceChoice::kAuto && !has_gpu()))
      return nullptr;
    if (choice == DeviceChoice::kGpu && !has_gpu())
      return fail(ErrorCode::kUnsupported, "MLX finds no GPU on this machine; --device cpu runs");
    return std::make_shared<const MlxDevice>(best_device(), simd);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kUnsupported, "MLX cannot use this machine's GPU: {}", error.what());
  }
}

std::optional<GpuFacts> gpu_facts() {
  try {
    return facts_of(best_device());
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace sluice::gpu
