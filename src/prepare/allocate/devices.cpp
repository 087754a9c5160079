#include "allocate/devices.h"

#include <algorithm>
#include <cctype>
#include <limits>

#include "allocate/data/embedded.h"
#include "allocate/size_text.h"
#include "base/checked.h"
#include "base/json.h"
#include "base/suggest.h"

namespace sluice::allocate {
namespace {

constexpr size_t kSuggestionsMax = 4;

// Letters and digits in lower case: "M3 Max 64GB" and "m3-max-64gb" are the same machine.
std::string plain_name(std::string_view name) {
  std::string plain;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)))
      plain.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  return plain;
}

Result<uint64_t> bytes_at(const Json& json, std::string_view key, std::string_view label) {
  SLUICE_ASSIGN(const int64_t value, json_int(json, key, 0, INT64_MAX, label));
  return static_cast<uint64_t>(value);
}

// Rates may be left out: not known.
Result<uint64_t> rate_at(const Json& json, std::string_view key, std::string_view label) {
  if (json_find(json, key) == nullptr) return uint64_t{0};
  return bytes_at(json, key, label);
}

Result<DeviceProfile> parse_device(const Json& json, std::string_view list_label) {
  DeviceProfile device;
  SLUICE_ASSIGN(device.name, json_string(json, "name", list_label));
  const std::string label = fmt::format("{}: device \"{}\"", list_label, device.name);
  if (plain_name(device.name).empty())
    return fail(ErrorCode::kCorrupt, "{}: the name has neither letters nor digits", label);
  SLUICE_ASSIGN(device.kind, json_string(json, "kind", label));
  SLUICE_ASSIGN(device.memory_bytes, bytes_at(json, "memory_bytes", label));
  SLUICE_ASSIGN(device.usable_bytes, bytes_at(json, "usable_bytes", label));
  if (device.usable_bytes > device.memory_bytes)
    return fail(ErrorCode::kCorrupt, "{}: usable_bytes {} is more than memory_bytes {}", label,
                device.usable_bytes, device.memory_bytes);
  if (json_find(json, "usable_reason") != nullptr) {
    SLUICE_ASSIGN(device.usable_reason, json_string(json, "usable_reason", label));
  }
  SLUICE_ASSIGN(device.memory_bytes_per_s, rate_at(json, "memory_bytes_per_s", label));
  SLUICE_ASSIGN(device.disk_internal_bytes_per_s,
                rate_at(json, "disk_internal_bytes_per_s", label));
  SLUICE_ASSIGN(device.disk_thunderbolt_bytes_per_s,
                rate_at(json, "disk_thunderbolt_bytes_per_s", label));
  SLUICE_ASSIGN(device.disk_usb_bytes_per_s, rate_at(json, "disk_usb_bytes_per_s", label));
  if (json_find(json, "source") != nullptr) {
    SLUICE_ASSIGN(device.source, json_string(json, "source", label));
  }
  return device;
}

// "73728 bytes (2 × 36 layers × 8 heads × 64 × 2 bytes)", one after another.
std::string geometry_text(std::span<const KvGeometry> kv) {
  std::string text;
  for (const KvGeometry& part : kv) {
    const uint64_t factors[] = {2, part.layers, part.kv_heads, part.head_dim,
                                part.bytes_per_element};
    text += fmt::format("{}{} bytes (2 × {} layers × {} heads × {} × {} bytes{})",
                        text.empty() ? "" : " + ", checked_product(factors).value_or(UINT64_MAX),
                        part.layers, part.kv_heads, part.head_dim, part.bytes_per_element,
                        part.window > 0 ? fmt::format(", of {} tokens at most", part.window) : "");
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

Result<std::vector<DeviceProfile>> parse_devices(std::string_view text, std::string_view label) {
  SLUICE_ASSIGN(const Json json, parse_json(text, label));
  SLUICE_ASSIGN(const int64_t version, json_int(json, "version", 1, INT32_MAX, label));
  if (version != 1)
    return fail(ErrorCode::kUnsupported,
                "{}: device list version {} is newer than this program knows (1)", label, version);
  SLUICE_ASSIGN(const Json* list, json_array(json, "devices", label));
  std::vector<DeviceProfile> devices;
  for (const Json& element : *list) {
    SLUICE_ASSIGN(DeviceProfile device, parse_device(element, label));
    const std::string name = plain_name(device.name);
    for (const DeviceProfile& other : devices)
      if (plain_name(other.name) == name)
        return fail(ErrorCode::kCorrupt, "{}: device \"{}\" is listed twice", label, device.name);
    devices.push_back(std::move(device));
  }
  return devices;
}

std::vector<DeviceProfile> builtin_devices() {
  auto devices = parse_devices(embedded_devices_json(), "built-in device list");
  SLUICE_CHECK(devices.has_value());
  for (DeviceProfile& device : *devices) device.origin = "built-in";
  return std::move(*devices);
}

uint64_t usable_by_default(uint64_t memory_bytes) {
  constexpr uint64_t kKeptMin = 2ull << 30;
  return memory_bytes - std::min(memory_bytes, std::max(memory_bytes / 8, kKeptMin));
}

std::vector<DeviceProfile> merge_devices(std::vector<DeviceProfile> builtin,
                                         std::span<const DeviceProfile> user) {
  for (const DeviceProfile& device : user) {
    const std::string name = plain_name(device.name);
    const auto same = std::ranges::find_if(
        builtin, [&](const DeviceProfile& other) { return plain_name(other.name) == name; });
    if (same == builtin.end()) {
      builtin.push_back(device);
    } else {
      *same = device;
    }
  }
  return builtin;
}

const DeviceProfile* device_named(std::span<const DeviceProfile> devices, std::string_view name) {
  const std::string wanted = plain_name(name);
  const auto found = std::ranges::find_if(
      devices, [&](const DeviceProfile& device) { return plain_name(device.name) == wanted; });
  return found == devices.end() ? nullptr : &*found;
}

Result<DeviceProfile> find_device(std::span<const DeviceProfile> devices, std::string_view name) {
  if (const DeviceProfile* device = device_named(devices, name)) return *device;
  const std::string wanted = plain_name(name);
  std::vector<std::pair<size_t, size_t>> ranked;  // distance, index
  for (size_t i = 0; i < devices.size(); ++i) {
    const std::string candidate = plain_name(devices[i].name);
    // A part of a name ("m3max", "3090") is nearer than any misspelling.
    const bool part = !wanted.empty() && candidate.find(wanted) != std::string::npos;
    ranked.push_back({part ? 0 : edit_distance(wanted, candidate), i});
  }
  std::sort(ranked.begin(), ranked.end());
  std::string suggestions;
  for (size_t i = 0; i < std::min(kSuggestionsMax, ranked.size()); ++i)
    suggestions += (i == 0 ? "" : ", ") + devices[ranked[i].second].name;
  return fail(ErrorCode::kNotFound,
              "no device profile is called \"{}\"; the nearest are {}. `sluice devices` lists all",
              name, suggestions.empty() ? "none" : suggestions);
}

std::optional<uint64_t> kv_bytes(std::span<const KvGeometry> kv, uint64_t context_tokens) {
  uint64_t bytes = 0;
  for (const KvGeometry& part : kv) {
    const uint64_t tokens =
        part.window > 0 ? std::min(part.window, context_tokens) : context_tokens;
    const uint64_t factors[] = {
        2, part.layers, part.kv_heads, part.head_dim, part.bytes_per_element, tokens};
    const auto of_part = checked_product(factors);
    const auto sum = of_part ? checked_add(bytes, *of_part) : std::nullopt;
    if (!sum) return std::nullopt;
    bytes = *sum;
  }
  return bytes;
}

Result<DeviceBudget> device_budget(const DeviceProfile& device, uint64_t context_tokens,
                                   std::span<const KvGeometry> kv, uint64_t scratch_bytes) {
  const auto cache_bytes = kv_bytes(kv, context_tokens);
  constexpr uint64_t kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!cache_bytes || *cache_bytes > kMax || scratch_bytes > kMax || device.memory_bytes > kMax ||
      device.usable_bytes > device.memory_bytes)
    return fail(ErrorCode::kInvalidArgument, "a KV cache of {} tokens ({}) is out of range on {}",
                context_tokens, geometry_text(kv), device.name);

  DeviceBudget budget;
  const std::string reason =
      device.usable_reason.empty() ? "kept for the system" : device.usable_reason;
  budget.lines = {
      {fmt::format("memory of {}", device.name), static_cast<int64_t>(device.memory_bytes)},
      {fmt::format("system's share: {}", reason),
       -static_cast<int64_t>(device.memory_bytes - device.usable_bytes)},
      {fmt::format("KV cache: {} tokens × {}", context_tokens, geometry_text(kv)),
       -static_cast<int64_t>(*cache_bytes)},
      {"runtime scratch: activations, logits, buffers", -static_cast<int64_t>(scratch_bytes)},
  };
  const auto taken = checked_add(*cache_bytes, scratch_bytes);
  if (!taken || *taken >= device.usable_bytes)
    return fail(
        ErrorCode::kInvalidArgument,
        "nothing is left for the model on {}: of {} it may use {}, the KV cache of {} tokens "
        "takes {} and runtime scratch {}. Give a shorter --context or a larger device",
        device.name, gigabytes_text(device.memory_bytes), gigabytes_text(device.usable_bytes),
        context_tokens, gigabytes_text(*cache_bytes), gigabytes_text(scratch_bytes));
  budget.bytes = device.usable_bytes - *taken;
  return budget;
}

}  // namespace sluice::allocate
