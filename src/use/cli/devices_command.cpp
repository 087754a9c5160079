// `sluice devices`: the device profiles that --device knows.
#include <CLI/CLI.hpp>

#include "allocate/devices.h"
#include "base/units.h"
#include "cli/context.h"

namespace sluice::cli {
namespace {

std::string rate_text(uint64_t bytes_per_s) {
  return bytes_per_s == 0 ? "–" : bytes_text(bytes_per_s) + "/s";
}

Result<int> run(Context& context) {
  const auto devices = allocate::builtin_devices();
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
                      {"source", device.source}});
    context.print_json({{"devices", std::move(list)}});
    return kExitSuccess;
  }
  Table table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.add({"device", "memory", "for a model", "memory rate", "disk"});
  for (const allocate::DeviceProfile& device : devices)
    table.add({device.name, bytes_text(device.memory_bytes), bytes_text(device.usable_bytes),
               rate_text(device.memory_bytes_per_s), rate_text(device.disk_internal_bytes_per_s)});
  context.print(table.text(""));
  return kExitSuccess;
}

}  // namespace

void add_devices(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("devices", "the device profiles that --device knows");
  command->footer("Example: sluice devices --json");
  command->callback([&action] { action = [](Context& context) { return run(context); }; });
}

}  // namespace sluice::cli
