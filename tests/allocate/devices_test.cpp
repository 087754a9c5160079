// Device profiles: the built-in list, look-up, the user's additions, the subtraction.
#include "allocate/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::allocate {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGiB = 1ull << 30;

TEST(Devices, BuiltinListIsSane) {
  const std::vector<DeviceProfile> devices = builtin_devices();
  EXPECT_GE(devices.size(), 60u);
  for (const DeviceProfile& device : devices) {
    EXPECT_FALSE(device.source.empty()) << device.name;
    EXPECT_FALSE(device.usable_reason.empty()) << device.name;
    EXPECT_GT(device.usable_bytes, device.memory_bytes / 2) << device.name;
    EXPECT_LT(device.usable_bytes, device.memory_bytes) << device.name;
    EXPECT_GT(device.memory_bytes_per_s, device.disk_internal_bytes_per_s) << device.name;
    const auto found = find_device(devices, device.name);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->name, device.name);
  }
}

TEST(Devices, WiredLimitOfMacs) {
  const std::vector<DeviceProfile> devices = builtin_devices();
  // What Metal reports on these machines, in MiB.
  EXPECT_EQ(find_device(devices, "M1 16GB")->usable_bytes >> 20, 10922u);
  EXPECT_EQ(find_device(devices, "M2 Max 32GB")->usable_bytes >> 20, 21845u);
  EXPECT_EQ(find_device(devices, "M1 Max 64GB")->usable_bytes >> 20, 49152u);
  EXPECT_EQ(find_device(devices, "M2 Max 96GB")->usable_bytes >> 20, 73728u);
  EXPECT_EQ(find_device(devices, "M3 Ultra 512GB")->memory_bytes, 512 * kGiB);
}

TEST(Devices, NamesAreFoundInAnySpelling) {
  const std::vector<DeviceProfile> devices = builtin_devices();
  EXPECT_EQ(find_device(devices, "m3-max-64gb")->name, "M3 Max 64GB");
  EXPECT_EQ(find_device(devices, "rtx 3090")->name, "RTX 3090");
  EXPECT_EQ(find_device(devices, "16gb")->name, "16GB");
}

TEST(Devices, UnknownNamesComeWithSuggestions) {
  const auto device = find_device(builtin_devices(), "M3 Maxx 64GB");
  ASSERT_FALSE(device.has_value());
  EXPECT_EQ(device.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(device.error().message, HasSubstr("M3 Max 64GB"));
  EXPECT_THAT(find_device(builtin_devices(), "m2ultra").error().message, HasSubstr("M2 Ultra"));
  EXPECT_FALSE(find_device({}, "x").has_value());
  EXPECT_FALSE(find_device(builtin_devices(), "").has_value());
}

TEST(Devices, BudgetIsTheSubtraction) {
  DeviceProfile device;
  device.name = "test";
  device.memory_bytes = 16 * kGiB;
  device.usable_bytes = 11 * kGiB;
  // Qwen3-8B: 36 layers, 8 heads of 128, 16-bit: 147,456 bytes per token.
  const std::vector<KvGeometry> kv = {{36, 8, 128, 2}};
  const auto budget = device_budget(device, 8192, kv, kGiB / 2);
  ASSERT_TRUE(budget.has_value());
  EXPECT_EQ(budget->bytes, 11 * kGiB - 8192ull * 147'456 - kGiB / 2);
  int64_t sum = 0;
  for (const BudgetLine& line : budget->lines) sum += line.bytes;
  EXPECT_EQ(sum, static_cast<int64_t>(budget->bytes));
  ASSERT_EQ(budget->lines.size(), 4u);
  EXPECT_THAT(budget->lines[2].name, HasSubstr("8192 tokens × 147456 bytes"));
  const std::vector<KvGeometry> windowed = {{6, 8, 128, 2}, {30, 8, 128, 2, 1024}};
  EXPECT_EQ(kv_bytes(windowed, 8192), 2ull * 8 * 128 * 2 * (6 * 8192 + 30 * 1024));
  EXPECT_EQ(kv_bytes(windowed, 512), kv_bytes(kv, 512));
  EXPECT_EQ(device_budget(device, 0, kv, 0)->bytes, device.usable_bytes);
}

TEST(Devices, NothingLeftIsAnErrorWithTheArithmetic) {
  DeviceProfile device;
  device.name = "tiny";
  device.memory_bytes = 2 * kGiB;
  device.usable_bytes = kGiB;
  const std::vector<KvGeometry> kv = {{36, 8, 128, 2}};
  const auto budget = device_budget(device, 100'000, kv);
  ASSERT_FALSE(budget.has_value());
  EXPECT_EQ(budget.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(budget.error().message, HasSubstr("14.7456 GB"));
  EXPECT_FALSE(device_budget(device, UINT64_MAX, kv).has_value());
  EXPECT_FALSE(device_budget(device, 1, kv, UINT64_MAX).has_value());
}

TEST(Devices, UserProfilesReplaceAndExtend) {
  const auto user = parse_devices(
      R"({"version": 1, "devices": [
          {"name": "m1 8gb", "kind": "mac", "memory_bytes": 8000, "usable_bytes": 7000},
          {"name": "Workstation", "kind": "plain", "memory_bytes": 9000, "usable_bytes": 8000}]})",
      "user.json");
  ASSERT_TRUE(user.has_value()) << user.error().message;
  const size_t before = builtin_devices().size();
  const std::vector<DeviceProfile> merged = merge_devices(builtin_devices(), *user);
  EXPECT_EQ(merged.size(), before + 1);
  EXPECT_EQ(find_device(merged, "M1 8GB")->usable_bytes, 7000u);
  EXPECT_EQ(find_device(merged, "workstation")->usable_bytes, 8000u);
}

TEST(Devices, DamagedListsAreRefused) {
  for (
      const char* text : {
          "",
          "{}",
          R"({"version": 1})",
          R"({"version": 1, "devices": {}})",
          R"({"version": 1, "devices": [3]})",
          R"({"version": 1, "devices": [{"name": "a"}]})",
          R"({"version": 1, "devices": [{"name": "--", "kind": "x", "memory_bytes": 2, "usable_bytes": 1}]})",
          R"({"version": 1, "devices": [{"name": "a", "kind": "x", "memory_bytes": -2, "usable_bytes": 1}]})",
          R"({"version": 1, "devices": [{"name": "a", "kind": "x", "memory_bytes": 1, "usable_bytes": 2}]})",
          R"({"version": 1, "devices": [{"name": "a", "kind": "x", "memory_bytes": 2, "usable_bytes": 1},
                                         {"name": "A", "kind": "x", "memory_bytes": 2, "usable_bytes": 1}]})",
      }) {
    const auto devices = parse_devices(text, "user.json");
    ASSERT_FALSE(devices.has_value()) << text;
    EXPECT_EQ(devices.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(devices.error().message, HasSubstr("user.json"));
  }
}

}  // namespace
}  // namespace sluice::allocate
