// `sluice doctor`: what this machine offers, what it will run, and what will bite.
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/doctor.h"
#include "cli/model_outlook.h"

namespace sluice::cli {
namespace {

struct Options {
  std::vector<std::string> paths;
  EngineArguments engine;
  std::string expert_trace;
};

// Of all experts, the part that has a slot, in percent.
constexpr double kSlotShares[] = {6.25, 12.5, 25, 37.5, 50, 75};
constexpr uint64_t kTraceBytesMax = 1ull << 30;
// The first steps find nothing in memory under any rule.
constexpr size_t kWarmUpPart = 10;

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

std::string gpu_text(const std::optional<gpu::GpuFacts>& gpu) {
  if (!gpu) return "not used: this program was built without MLX";
  if (!gpu->is_gpu) return fmt::format("{} finds none", gpu->library);
  std::string text = fmt::format("{}, by {}", gpu->name, gpu->library);
  if (gpu->memory_bytes > 0) text += fmt::format("; memory {}", bytes_text(gpu->memory_bytes));
  if (gpu->working_set_bytes > 0)
    text += fmt::format(", of which it may use {} at a time, {} in one buffer",
                        bytes_text(gpu->working_set_bytes), bytes_text(gpu->buffer_bytes_max));
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
  table.add({"GPU", gpu_text(found.gpu)});
  table.add({"open files", fmt::format("{} allowed", found.descriptors)});
  return table.text("  ");
}

std::string disks_text(const Diagnosis& found) {
  Table table({Align::kLeft, Align::kRight, Align::kRight});
  Table ways({Align::kLeft, Align::kLeft, Align::kRight, Align::kRight});
  table.add({"disk at", "free", "analysis of 10 GB"});
  ways.add({"disk at", "reads by", "", "processor time"});
  for (const DiskCheck& disk : found.disks) {
    if (!disk.error.empty()) continue;
    const double seconds = std::max(found.disk_seconds(disk), found.pricing_seconds());
    table.add({disk.path, bytes_text(disk.free_bytes), "about " + duration_text(seconds)});
    for (const io::DiskProbe& probe : disk.probes)
      ways.add({disk.path, std::string(io::disk_path_name(probe.path)),
                rate_text(probe.bytes_per_s()),
                fmt::format("{:.0f} ms/GB", 1e3 * probe.cpu_s_per_gb())});
  }
  return table.text("  ") + "\n" + ways.text("  ");
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
    const io::DiskProbe& best = disk.fastest();
    Json ways = Json::array();
    for (const io::DiskProbe& probe : disk.probes)
      ways.push_back({{"by", io::disk_path_name(probe.path)},
                      {"read_bytes_per_s", probe.bytes_per_s()},
                      {"bytes_read", probe.bytes},
                      {"cpu_s_per_gb", probe.cpu_s_per_gb()}});
    disks.push_back({{"path", disk.path},
                     {"read_bytes_per_s", best.bytes_per_s()},
                     {"ways", std::move(ways)},
                     {"file", best.file},
                     {"file_was_written", best.written},
                     {"direct", best.past_cache()},
                     {"free_bytes", disk.free_bytes},
                     {"read_10gb_s", found.disk_seconds(disk)}});
  }
  return disks;
}

Json gpu_json(const std::optional<gpu::GpuFacts>& gpu) {
  if (!gpu) return nullptr;
  return {{"name", gpu->name},
          {"library", gpu->library},
          {"is_gpu", gpu->is_gpu},
          {"memory_bytes", gpu->memory_bytes},
          {"working_set_bytes", gpu->working_set_bytes},
          {"buffer_bytes_max", gpu->buffer_bytes_max}};
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
          {"gpu", gpu_json(found.gpu)},
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

// Which part of the experts that a run asked for would have been in memory.
Result<int> show_trace(Context& context, const std::string& path) {
  SLUICE_ASSIGN(const auto source, context.storage->open_source(path));
  SLUICE_ASSIGN(const std::string text, io::read_text(*source, kTraceBytesMax));
  SLUICE_ASSIGN(const runtime::ExpertTrace trace, runtime::parse_trace(text, path));
  const size_t skip = trace.steps.size() / kWarmUpPart;
  Table table(
      {Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  table.add({"of the experts", "slots", "LRU", "LFU", "next use", "Belady"});
  Json rows = Json::array();
  for (const double share : kSlotShares) {
    const auto slots = std::max<size_t>(
        1, static_cast<size_t>(share / 100 * static_cast<double>(trace.experts_all())));
    std::vector<std::string> cells = {fmt::format("{} %", share), fmt::format("{}", slots)};
    Json row = {{"share", share / 100}, {"slots", slots}};
    const auto add = [&](std::string_view name, std::optional<runtime::SlotPolicy> policy) {
      const double hits = runtime::replay_experts(trace, slots, policy, skip).share();
      cells.push_back(fmt::format("{:.1f} %", 100 * hits));
      row[std::string(name)] = hits;
    };
    for (const runtime::SlotPolicy policy : runtime::kSlotPolicies)
      add(runtime::slot_policy_name(policy), policy);
    add("belady", std::nullopt);
    table.add(cells);
    rows.push_back(std::move(row));
  }
  if (context.options.json)
    context.print_json({{"steps", trace.steps.size()},
                        {"skipped", skip},
                        {"experts", trace.experts_all()},
                        {"experts_per_token", trace.experts_per_token},
                        {"hit_rates", std::move(rows)}});
  else
    context.print(
        fmt::format("{} steps of {} layers with {} experts together, {} of a layer's for "
                    "each token; found in memory, the first {} steps not counted:\n\n{}",
                    trace.steps.size(), trace.experts.size(), trace.experts_all(),
                    trace.experts_per_token, skip, table.text("  ")));
  return kExitSuccess;
}

// A model pointed at tells how it would run; other paths only have their disk measured.
Result<int> run(Context& context, const Options& options) {
  if (!options.expert_trace.empty()) return show_trace(context, options.expert_trace);
  const std::vector<std::string> here = {"."};
  const Diagnosis found = diagnose(context, options.paths.empty() ? here : options.paths);
  Json models = Json::array();
  std::string models_text;
  for (const DiskCheck& disk : found.disks) {
    if (!looks_like_model(disk.path)) continue;
    const double rate = disk.error.empty() ? disk.fastest().bytes_per_s() : 0;
    const auto outlook = model_outlook(context, disk.path, options.engine);
    if (!outlook) {
      models_text += fmt::format("\n{}\n", outlook.error().message);
      models.push_back({{"path", disk.path}, {"error", outlook.error().message}});
      continue;
    }
    models_text += "\n" + outlook_text(*outlook, rate);
    models.push_back(outlook_json(*outlook, rate));
  }
  if (context.options.json) {
    Json json = json_of(found, context.settings);
    json["models"] = std::move(models);
    context.print_json(json);
  } else {
    context.print(text_of(found, context.settings) + models_text);
  }
  return kExitSuccess;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "doctor", "what this machine offers: cores, SIMD, memory, disk rates, and what it will run");
  command->add_option("PATH", options->paths,
                      "files or folders whose disk to measure, a second each (default: here); in "
                      "a folder the largest file is read, or a temporary one written; of a model "
                      "it is told how it would run");
  add_engine_options(*command, options->engine);
  command
      ->add_option("--replay", options->expert_trace,
                   "instead, what part of the experts in a file of --expert-trace would have been "
                   "in memory, by the rule for who makes room")
      ->type_name("FILE");
  command->footer(
      "Examples:\n"
      "  sluice doctor\n"
      "  sluice doctor ./Qwen3-30B-A3B-4bit --memory 8GB\n"
      "  sluice doctor ./Qwen3-8B /Volumes/Models --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
