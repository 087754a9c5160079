#include "cli/user_devices.h"

#include <algorithm>
#include <cctype>

#include "base/suggest.h"
#include "base/units.h"
#include "cli/toml.h"

namespace sluice::cli {
namespace {

using allocate::DeviceProfile;

constexpr std::string_view kTable = "devices";

// "400GB/s", or without the "/s".
Result<uint64_t> parse_rate(std::string_view text) {
  if (text.ends_with("/s")) text.remove_suffix(2);
  return parse_bytes(text);
}

struct Key {
  std::string_view name;
  uint64_t DeviceProfile::* number;  // or
  std::string DeviceProfile::* text;
  bool rate;
};
constexpr Key kKeys[] = {
    {"kind", nullptr, &DeviceProfile::kind, false},
    {"memory", &DeviceProfile::memory_bytes, nullptr, false},
    {"usable", &DeviceProfile::usable_bytes, nullptr, false},
    {"usable-reason", nullptr, &DeviceProfile::usable_reason, false},
    {"memory-rate", &DeviceProfile::memory_bytes_per_s, nullptr, true},
    {"disk-internal", &DeviceProfile::disk_internal_bytes_per_s, nullptr, true},
    {"disk-thunderbolt", &DeviceProfile::disk_thunderbolt_bytes_per_s, nullptr, true},
    {"disk-usb", &DeviceProfile::disk_usb_bytes_per_s, nullptr, true},
    {"source", nullptr, &DeviceProfile::source, false},
};

Status set_key(DeviceProfile& device, const TomlEntry& entry, const std::string& where) {
  const std::string& name = entry.path.back();
  const auto key = std::ranges::find(kKeys, name, &Key::name);
  if (key == std::end(kKeys)) {
    std::vector<std::string> known;
    for (const Key& other : kKeys) known.emplace_back(other.name);
    return fail(ErrorCode::kInvalidArgument, "{}: a device has no \"{}\"{}", where, name,
                did_you_mean(name, known));
  }
  if (key->text != nullptr) {
    device.*(key->text) = entry.text;
    return {};
  }
  const auto number = key->rate ? parse_rate(entry.text) : parse_bytes(entry.text);
  if (!number)
    return fail(ErrorCode::kInvalidArgument, "{}: {}: {}", where, entry.name(),
                number.error().message);
  device.*(key->number) = *number;
  return {};
}

// One profile: its table's header and the keys that follow it.
Result<DeviceProfile> read_device(const DeviceProfile* base, const TomlEntry& header,
                                  std::span<const TomlEntry> entries, const std::string& label) {
  DeviceProfile device;
  if (base != nullptr) device = *base;
  device.name = header.path[1];
  device.origin = fmt::format("{}:{}", label, header.line);
  if (std::ranges::none_of(device.name,
                           [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }))
    return fail(ErrorCode::kInvalidArgument, "{}: a device needs letters or digits in its name",
                device.origin);
  bool memory = false, usable = false;
  for (const TomlEntry& entry : entries) {
    if (entry.path.size() < 3 || entry.path[0] != kTable || entry.path[1] != device.name) continue;
    const std::string where = fmt::format("{}:{}", label, entry.line);
    if (entry.table || entry.path.size() > 3)
      return fail(ErrorCode::kInvalidArgument, "{}: a device has no table \"{}\"", where,
                  entry.name());
    SLUICE_TRY(set_key(device, entry, where));
    memory = memory || entry.path[2] == "memory";
    usable = usable || entry.path[2] == "usable";
  }
  if (device.memory_bytes == 0)
    return fail(ErrorCode::kInvalidArgument, "{}: device \"{}\" gives no memory, such as \"64GiB\"",
                device.origin, device.name);
  if (memory && !usable) {
    device.usable_bytes = allocate::usable_by_default(device.memory_bytes);
    device.usable_reason = "an eighth of memory, at least 2 GiB, kept for the system";
  }
  if (device.usable_bytes > device.memory_bytes)
    return fail(ErrorCode::kInvalidArgument, "{}: device \"{}\" has {} usable of {} memory",
                device.origin, device.name, bytes_text(device.usable_bytes),
                bytes_text(device.memory_bytes));
  if (usable && std::ranges::none_of(entries, [&](const TomlEntry& entry) {
        return entry.path.size() == 3 && entry.path[1] == device.name &&
               entry.path[2] == "usable-reason";
      }))
    device.usable_reason = "as set in " + device.origin;
  if (device.kind.empty()) device.kind = "plain";
  return device;
}

}  // namespace

Result<std::vector<DeviceProfile>> with_user_devices(std::vector<DeviceProfile> builtin,
                                                     std::string_view text,
                                                     const std::string& label, bool devices_only) {
  SLUICE_ASSIGN(const std::vector<TomlEntry> entries, parse_toml(text, label));
  std::vector<DeviceProfile> user;
  for (const TomlEntry& entry : entries) {
    if (entry.path.front() != kTable && devices_only)
      return fail(ErrorCode::kInvalidArgument,
                  "{}:{}: \"{}\" has no place here; a device is a table [devices.\"NAME\"]", label,
                  entry.line, entry.name());
    if (entry.path.front() != kTable || entry.path.size() > 2) continue;
    if (!entry.table)
      return fail(ErrorCode::kInvalidArgument,
                  "{}:{}: {} is no device; a device is a table [devices.\"NAME\"]", label,
                  entry.line, entry.name());
    if (entry.path.size() == 1) continue;
    if (allocate::device_named(user, entry.path[1]) != nullptr)
      return fail(ErrorCode::kInvalidArgument, "{}:{}: device \"{}\" is listed twice", label,
                  entry.line, entry.path[1]);
    SLUICE_ASSIGN(DeviceProfile device, read_device(allocate::device_named(builtin, entry.path[1]),
                                                    entry, entries, label));
    user.push_back(std::move(device));
  }
  return allocate::merge_devices(std::move(builtin), user);
}

Result<std::vector<DeviceProfile>> known_devices(Context& context) {
  std::vector<DeviceProfile> devices = allocate::builtin_devices();
  if (context.config_folder.empty()) return devices;
  for (const auto& [name, devices_only] :
       {std::pair{"/config.toml", false}, std::pair{"/devices.toml", true}}) {
    const std::string path = context.config_folder + name;
    SLUICE_ASSIGN(const std::string text, read_settings_file(*context.storage, path));
    SLUICE_ASSIGN(devices, with_user_devices(std::move(devices), text, path, devices_only));
  }
  return devices;
}

}  // namespace sluice::cli
