// `sluice doctor`: what this machine offers, what it will run, and what will bite.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/doctor.h"

namespace sluice::cli {
namespace {

struct Options {
  std::vector<std::string> paths;
};

// Bits per weight of the usual 4-bit format with its scales.
constexpr double kUsualBits = 4.5;

std::string billions_text(double weights) { return fmt::format("{:.1f} billion", weights / 1e9); }

std::string rate_text(double bytes_per_s) {
  return bytes_text(static_cast<uint64_t>(bytes_per_s)) + "/s";
}

std::string memory_text(const MemoryInfo& memory) {
  std::string text = bytes_text(memory.total) + " installed";
  if (memory.available > 0) text += ", " + bytes_text(memory.available) + " available";
  if (memory.limit > 0) text += ", limited to " + bytes_text(memory.limit);
  return text;
}

std::string machine_text(const Diagnosis& found) {
  Table table({Align::kLeft, Align::kLeft});
  table.add({"system", found.system});
  if (!found.processor.empty()) table.add({"processor", found.processor});
  table.add({"cores", fmt::format("{} for this process", found.cores)});
  std::string simd = fmt::format("{} in use", simd_level_name(found.used));
  if (found.compiled != found.used || found.offered != found.used)
    simd += fmt::format("; {} built, {} offered", simd_level_name(found.compiled),
                        simd_level_name(found.offered));
  table.add({"SIMD", simd});
  table.add({"memory", memory_text(found.memory)});
  table.add({"open files", fmt::format("{} allowed", found.descriptors)});
  return table.text("  ");
}

std::string disks_text(const Diagnosis& found) {
  Table table({Align::kLeft, Align::kRight, Align::kLeft, Align::kRight, Align::kRight});
  table.add({"disk at", "reads", "past the cache", "free", "analysis of 10 GB"});
  for (const DiskCheck& disk : found.disks) {
    if (!disk.error.empty()) continue;
    const double seconds = std::max(found.disk_seconds(disk), found.pricing_seconds());
    table.add({disk.path, rate_text(disk.probe.bytes_per_s()), disk.probe.direct ? "yes" : "no",
               bytes_text(disk.free_bytes), "about " + duration_text(seconds)});
  }
  return table.text("  ");
}

std::string outlook_text(const Diagnosis& found) {
  Table table({Align::kLeft, Align::kLeft});
  table.add(
      {"pricing", fmt::format("{:.0f} million weights/s over all formats: 10 GB of 16-bit "
                              "weights in {}",
                              found.weights_per_s / 1e6, duration_text(found.pricing_seconds()))});
  if (found.model_bytes > 0)
    table.add({"in memory",
               fmt::format("models up to {}, some {} weights at {} bits (nearest profile: {})",
                           bytes_text(found.model_bytes),
                           billions_text(static_cast<double>(found.model_bytes) * 8 / kUsualBits),
                           kUsualBits, found.profile)});
  return table.text("  ");
}

std::string settings_text(const std::vector<Setting>& settings) {
  Table table({Align::kLeft, Align::kLeft, Align::kLeft});
  for (const Setting& setting : settings) table.add({setting.name, setting.value, setting.origin});
  return table.text("  ");
}

std::string text_of(const Diagnosis& found, const std::vector<Setting>& settings) {
  std::string text = machine_text(found) + "\n" + disks_text(found) + "\n" + outlook_text(found);
  if (!settings.empty())
    text += "\nsettings, and where each comes from\n" + settings_text(settings);
  if (!found.warnings.empty()) text += "\n";
  for (const std::string& warning : found.warnings) text += "warning: " + warning + "\n";
  return text;
}

Json disks_json(const Diagnosis& found) {
  Json disks = Json::array();
  for (const DiskCheck& disk : found.disks) {
    if (!disk.error.empty()) {
      disks.push_back({{"path", disk.path}, {"error", disk.error}});
      continue;
    }
    disks.push_back({{"path", disk.path},
                     {"read_bytes_per_s", disk.probe.bytes_per_s()},
                     {"bytes_read", disk.probe.bytes},
                     {"file", disk.probe.file},
                     {"file_was_written", disk.probe.written},
                     {"direct", disk.probe.direct},
                     {"free_bytes", disk.free_bytes},
                     {"read_10gb_s", found.disk_seconds(disk)}});
  }
  return disks;
}

Json json_of(const Diagnosis& found, const std::vector<Setting>& settings) {
  Json list = Json::array();
  for (const Setting& setting : settings)
    list.push_back({{"name", setting.name}, {"value", setting.value}, {"origin", setting.origin}});
  return {{"system", found.system},
          {"processor", found.processor},
          {"cores", found.cores},
          {"simd",
           {{"offered", simd_level_name(found.offered)},
            {"built", simd_level_name(found.compiled)},
            {"used", simd_level_name(found.used)}}},
          {"memory",
           {{"total_bytes", found.memory.total},
            {"available_bytes", found.memory.available},
            {"limit_bytes", found.memory.limit}}},
          {"open_files", found.descriptors},
          {"open_files_max", found.descriptors_max},
          {"disks", disks_json(found)},
          {"pricing_weights_per_s", found.weights_per_s},
          {"pricing_10gb_s", found.pricing_seconds()},
          {"profile", found.profile},
          {"model_bytes", found.model_bytes},
          {"settings", std::move(list)},
          {"warnings", found.warnings}};
}

Result<int> run(Context& context, const Options& options) {
  const std::vector<std::string> here = {"."};
  const Diagnosis found = diagnose(context, options.paths.empty() ? here : options.paths);
  if (context.options.json)
    context.print_json(json_of(found, context.settings));
  else
    context.print(text_of(found, context.settings));
  return kExitSuccess;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "doctor", "what this machine offers: cores, SIMD, memory, disk rates, and what it will run");
  command->add_option("PATH", options->paths,
                      "files or folders whose disk to measure, a second each (default: here); in "
                      "a folder the largest file is read, or a temporary one written");
  command->footer(
      "Examples:\n"
      "  sluice doctor\n"
      "  sluice doctor ./Qwen3-8B /Volumes/Models --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
