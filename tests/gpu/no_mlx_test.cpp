// A build without MLX: the processor runs everything, and whoever asks for a GPU is told why not.
#include <gmock/gmock.h>

#include "gpu/gpu_device.h"
#include "runtime/step_backend.h"

namespace sluice::gpu {
namespace {

TEST(NoMlx, IsSaidInOneSentence) {
  for (const DeviceChoice choice : {DeviceChoice::kGpu, DeviceChoice::kMlx}) {
    const auto device = open_device(choice, SimdLevel::kScalar);
    ASSERT_FALSE(device.has_value());
    EXPECT_EQ(device.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(device.error().message, testing::HasSubstr("built without MLX"));
  }
  EXPECT_FALSE(gpu_facts().has_value());
}

TEST(NoMlx, TheProcessorIsThere) {
  for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCpu}) {
    const auto device = open_device(choice, SimdLevel::kScalar);
    ASSERT_TRUE(device.has_value());
    EXPECT_EQ(*device, nullptr);
  }
}

TEST(NoMlx, NamesOfDevices) {
  EXPECT_EQ(*parse_device("mlx"), DeviceChoice::kMlx);
  EXPECT_EQ(*parse_device("auto"), DeviceChoice::kAuto);
  EXPECT_EQ(parse_device("tpu").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::gpu
