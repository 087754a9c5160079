// Device profiles: what a machine has, what of that a model may use, and the subtraction that turns
// it into a byte budget. Data in data/devices.json, extendable by the user.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::allocate {

// All rates in bytes per second; 0: does not apply or not known.
struct DeviceProfile {
  std::string name;           // unique, any case: "M3 Max 64GB"
  std::string kind;           // "mac", "iphone", "ipad", "nvidia", "plain"
  uint64_t memory_bytes = 0;  // installed: RAM, or the card's own memory
  uint64_t usable_bytes = 0;  // of that, what one program's model may occupy by default
  std::string usable_reason;  // why that and not all
  uint64_t memory_bytes_per_s = 0;
  uint64_t disk_internal_bytes_per_s = 0;  // sequential reads
  uint64_t disk_thunderbolt_bytes_per_s = 0;
  uint64_t disk_usb_bytes_per_s = 0;
  std::string source;  // where the figures come from
  std::string origin;  // where the profile was defined: "built-in", or a file and line
};

// Errors: kCorrupt, naming label and profile.
Result<std::vector<DeviceProfile>> parse_devices(std::string_view text, std::string_view label);
std::vector<DeviceProfile> builtin_devices();
// What a program's model may use of ordinary memory: all but an eighth, at least 2 GiB.
uint64_t usable_by_default(uint64_t memory_bytes);
// User profiles replace built-in ones of the same name (any case) and follow otherwise.
std::vector<DeviceProfile> merge_devices(std::vector<DeviceProfile> builtin,
                                         std::span<const DeviceProfile> user);

// The profile of that name, any case, spaces and punctuation ignored; null: none.
const DeviceProfile* device_named(std::span<const DeviceProfile> devices, std::string_view name);
// The same. Errors: kNotFound with the nearest names.
Result<DeviceProfile> find_device(std::span<const DeviceProfile> devices, std::string_view name);

// What one token of context costs in layers that are alike: 2 · layers · kv_heads · head_dim ·
// bytes_per_element.
struct KvGeometry {
  uint64_t layers = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  uint64_t bytes_per_element = 2;
  uint64_t window = 0;  // tokens that are kept at most; 0: all
};
// Of so many tokens; nothing where that is more than 64 bits hold.
std::optional<uint64_t> kv_bytes(std::span<const KvGeometry> kv, uint64_t context_tokens);

// Activations of a prefill chunk, logits and the allocator's cache: half a GiB holds those of
// models up to about 30B parameters with mlx_lm's default chunk of 2,048 tokens.
inline constexpr uint64_t kRuntimeScratchBytes = 512ull << 20;

struct BudgetLine {
  std::string name;
  int64_t bytes = 0;  // negative: taken away
};
struct DeviceBudget {
  std::vector<BudgetLine> lines;  // memory first; the rest is taken from it; Σ = bytes
  uint64_t bytes = 0;             // what is left for the model's weights
};

// Errors: kInvalidArgument when nothing is left (the message is the subtraction) or sizes overflow.
Result<DeviceBudget> device_budget(const DeviceProfile& device, uint64_t context_tokens,
                                   std::span<const KvGeometry> kv,
                                   uint64_t scratch_bytes = kRuntimeScratchBytes);

}  // namespace sluice::allocate
