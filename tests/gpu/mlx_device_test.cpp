// What is MLX's own: memory without copies, formats and settings that it has no product for, and
// packed weights of every kind against the scalar decoder.
#include <gmock/gmock.h>

#include <cmath>

#include "gpu/gpu_device.h"
#include "gpu/mlx_weights.h"
#include "runtime/engines.h"

namespace sluice::gpu {
namespace {

using runtime::EngineOptions;
using testing::HasSubstr;

std::shared_ptr<const runtime::Device> mlx_device() {
  const auto device = open_device(DeviceChoice::kMlx, test::widest_simd());
  SLUICE_CHECK(device.has_value());
  return *device;
}

TEST(MlxMemory, ViewsCopyNothing) {
  const MlxMemory memory;
  auto pages = memory.reserve(100'000, "a test");
  ASSERT_TRUE(pages.has_value()) << pages.error().message;
  EXPECT_EQ(reinterpret_cast<size_t>(pages->data()) % 4096, 0u);
  float* values = reinterpret_cast<float*>(pages->data() + 8192);
  for (int i = 0; i < 12; ++i) values[i] = static_cast<float>(i);
  const mx::array view = memory.view(pages->data() + 8192, {3, 4}, mx::float32);
  EXPECT_EQ(view.data<float>(), values);
  values[5] = 50;  // read anew into the same place
  const mx::array sum = mx::sum(view, 1);
  mx::eval(sum);
  EXPECT_EQ(sum.data<float>()[1], 4 + 50 + 6 + 7);
}

TEST(MlxMemory, CopiesWhatCannotBeViewed) {
  const MlxMemory memory;
  auto pages = memory.reserve(8192, "a test");
  ASSERT_TRUE(pages.has_value());
  const float value = 1.5f;
  std::memcpy(pages->data() + 3, &value, sizeof value);
  EXPECT_EQ(memory.view(pages->data() + 3, {1}, mx::float32).item<float>(), value);
  const auto* elsewhere = reinterpret_cast<const std::byte*>(&value);
  EXPECT_EQ(memory.view(elsewhere, {1}, mx::float32).item<float>(), value);
}

TEST(MlxMemory, OutlivesItsOwner) {
  const MlxMemory memory;
  std::optional<mx::array> view;
  {
    auto pages = memory.reserve(4096, "a test");
    ASSERT_TRUE(pages.has_value());
    std::memset(pages->data(), 0, 16);
    view = memory.view(pages->data(), {4}, mx::float32);
  }
  EXPECT_EQ(mx::sum(*view).item<float>(), 0.0f);
}

TEST(MlxDevice, RefusesWhatItHasNoProductFor) {
  ThreadPool pool(1);
  EngineOptions options = runtime::f32_options();
  options.device = mlx_device();
  const auto refusal = [&](const std::shared_ptr<const io::Checkpoint>& checkpoint) {
    const auto engine = runtime::Engine::plan(checkpoint, options, pool);
    if (engine) return std::string("none");
    EXPECT_EQ(engine.error().code, ErrorCode::kUnsupported);
    return engine.error().message;
  };
  EXPECT_EQ(refusal(test::tiny_llama().build()), "none");
  EXPECT_THAT(refusal(test::tiny_gguf().build()),
              HasSubstr("no product with weights of type Q4_0"));
  options.kv = runtime::KvType::kQ8;
  EXPECT_THAT(refusal(test::tiny_llama().build()), HasSubstr("keys and values of q8"));
  options.kv = runtime::KvType::kF16;
  options.activations = runtime::ActivationChoice::kI8;
  EXPECT_THAT(refusal(test::tiny_llama().build()), HasSubstr("--activations i8"));
}

TEST(MlxDevice, TellsWhatItIs) {
  const auto facts = gpu_facts();
  ASSERT_TRUE(facts.has_value());
  EXPECT_THAT(facts->library, HasSubstr("MLX 0."));
  EXPECT_FALSE(facts->name.empty());
  const auto automatic = open_device(DeviceChoice::kAuto, test::widest_simd());
  ASSERT_TRUE(automatic.has_value());
  EXPECT_EQ(*automatic != nullptr, facts->is_gpu);
  EXPECT_EQ(open_device(DeviceChoice::kGpu, test::widest_simd()).has_value(), facts->is_gpu);
}

}  // namespace
}  // namespace sluice::gpu
