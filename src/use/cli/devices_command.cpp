// `sluice devices`: the device profiles that --device knows.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/context.h"
#include "cli/user_devices.h"

namespace sluice::cli {
namespace {

std::string rate_text(uint64_t bytes_per_s) {
  return bytes_per_s == 0 ? "–" : bytes_text(bytes_per_s) + "/s";
}

// Files of the settings folder by their bare name.
std::string origin_text(const Context& context, const std::string& origin) {
  const std::string folder = context.config_folder + "/";
  return origin.starts_with(folder) ? origin.substr(folder.size()) : origin;
}

Result<int> run(Context& context) {
  SLUICE_ASSIGN(const auto devices, known_devices(context));
  if (context.options.json) {
    Json list = Json::array();
    for (const allocate::DeviceProfile& device : devices)
      list.push_back({{"name", device.name},
                      {"kind", device.kind},
                      {"memory_bytes", device.memory_bytes},
                      {"usable_bytes", device.usable_bytes},
                      {"memory_bytes_per_s", device.memory_bytes_per_s},
                      {"disk_internal_bytes_per_s", device.disk_internal_bytes_per_s},
                      {"disk_thunderbolt_bytes_per_s", device.disk_thunderbolt_bytes_per_s},
                      {"disk_usb_bytes_per_s", device.disk_usb_bytes_per_s},
                      {"source", device.source},
                      {"origin", device.origin}});
    context.print_json({{"devices", std::move(list)}});
    return kExitSuccess;
  }
  Table table(
      {Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.add({"device", "memory", "for a model", "memory rate", "disk", "from"});
  for (const allocate::DeviceProfile& device : devices)
    table.add({device.name, bytes_text(device.memory_bytes), bytes_text(device.usable_bytes),
               rate_text(device.memory_bytes_per_s), rate_text(device.disk_internal_bytes_per_s),
               origin_text(context, device.origin)});
  context.print(table.text(""));
  return kExitSuccess;
}

}  // namespace

void add_devices(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("devices", "the device profiles that --device knows");
  command->footer(
      "Examples:\n"
      "  sluice devices\n"
      "  sluice devices --json\n\n"
      "Profiles of your own go into ~/.config/sluice/devices.toml; one of a built-in name changes\n"
      "the keys it gives:\n\n"
      "    [devices.\"Lab box\"]\n"
      "    memory = \"64GiB\"\n"
      "    usable = \"60GiB\"\n"
      "    memory-rate = \"80GB/s\"\n"
      "    disk-internal = \"3GB/s\"");
  command->callback([&action] { action = [](Context& context) { return run(context); }; });
}

}  // namespace sluice::cli
