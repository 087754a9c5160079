// `sluice inspect`: what a model is and what it would take, from headers alone.
#include <CLI/CLI.hpp>
#include <map>

#include "allocate/devices.h"
#include "base/units.h"
#include "cli/model.h"
#include "cli/uniform_plan.h"
#include "cli/user_devices.h"
#include "model/config.h"
#include "numerics/affine_price.h"
#include "numerics/block_codec.h"
#include "stream/output_layout.h"

namespace sluice::cli {
namespace {

struct Options {
  std::string model, dtype, layers;
};

struct Size {
  uint64_t modules = 0, elements = 0, bytes = 0;
  std::string lossless;  // of a dtype: the format its blocks move to unchanged, in a float16 model
};

struct UniformSize {
  numerics::QuantFormat format;
  uint64_t bytes = 0;
  uint64_t smaller_group = 0;  // modules whose rows the group does not divide
};

// Exact bytes of the weight files at a uniform format, by the rules of `quantize`.
Result<uint64_t> uniform_bytes(const OpenedModel& model, const numerics::QuantFormat& format) {
  const FormatRule wanted = uniform_rule(format);
  std::vector<numerics::QuantFormat> formats;
  for (const families::OutputModule& module : model.map.modules)
    formats.push_back(uniform_format(model, module, wanted(module)));
  SLUICE_ASSIGN(const stream::OutputLayout layout,
                stream::layout_output(stream::layout_modules(*model.checkpoint, model.map),
                                      model.map.dtype, formats));
  return layout.file_bytes;
}

uint64_t smaller_groups(const OpenedModel& model, const numerics::QuantFormat& format) {
  const FormatRule wanted = uniform_rule(format);
  return static_cast<uint64_t>(
      std::ranges::count_if(model.map.modules, [&](const families::OutputModule& module) {
        const numerics::QuantFormat asked = wanted(module);
        const numerics::QuantFormat given = uniform_format(model, module, asked);
        const bool same_width = given.mode == asked.mode && given.bits == asked.bits;
        return module.bits_floor == 0 && module.quantizable && given != asked &&
               (same_width || given.mode == numerics::QuantMode::kFloat);
      }));
}

Result<std::vector<UniformSize>> uniform_sizes(const OpenedModel& model) {
  std::vector<UniformSize> sizes;
  for (const uint8_t bits : numerics::kAffineBits)
    for (const uint16_t group : numerics::kAffineGroups) {
      const numerics::QuantFormat format{numerics::QuantMode::kAffine, bits, group};
      SLUICE_ASSIGN(const uint64_t bytes, uniform_bytes(model, format));
      sizes.push_back({format, bytes, smaller_groups(model, format)});
    }
  for (const numerics::QuantFormat& format : numerics::kFpFormats) {
    SLUICE_ASSIGN(const uint64_t bytes, uniform_bytes(model, format));
    sizes.push_back({format, bytes, 0});
  }
  SLUICE_ASSIGN(const uint64_t plain, uniform_bytes(model, {}));
  sizes.push_back({{}, plain, 0});
  return sizes;
}

// The formats by which devices are compared: group 64 and unquantized.
bool is_yardstick(const numerics::QuantFormat& format) {
  return format.group_size == 64 || format.mode == numerics::QuantMode::kFloat;
}

bool fits(const allocate::DeviceProfile& device, uint64_t bytes) {
  return bytes + allocate::kRuntimeScratchBytes <= device.usable_bytes;
}

// The widest such format that a device's model memory holds.
std::string widest_fit(const allocate::DeviceProfile& device, std::span<const UniformSize> sizes) {
  std::string widest = "streams";
  for (const UniformSize& size : sizes)
    if (is_yardstick(size.format) && fits(device, size.bytes))
      widest = numerics::format_text(size.format);
  return widest;
}

// The device of least memory that holds so many bytes of weights.
std::string smallest_device(std::span<const allocate::DeviceProfile> devices, uint64_t bytes) {
  const allocate::DeviceProfile* smallest = nullptr;
  for (const allocate::DeviceProfile& device : devices)
    if (fits(device, bytes) &&
        (smallest == nullptr || device.usable_bytes < smallest->usable_bytes))
      smallest = &device;
  if (smallest == nullptr) return "no profile: would have to stream";
  return fmt::format("{} ({} for a model)", smallest->name, bytes_text(smallest->usable_bytes));
}

// "8.19 billion", "134.5 million".
std::string count_text(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} billion", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.1f} million", value / 1e6);
  return fmt::format("{}", count);
}

struct Inspection {
  uint64_t parameters = 0, source_bytes = 0, experts = 0;
  std::map<std::string, Size> roles;
  std::map<std::string, Size> dtypes;
  std::vector<UniformSize> uniform;
  std::vector<allocate::DeviceProfile> devices;
  std::string runs_not;  // why there is no forward pass for it; empty: there is
};

Result<Inspection> inspect(Context& context, const OpenedModel& model) {
  Inspection result;
  SLUICE_ASSIGN(result.devices, known_devices(context));
  for (const families::OutputModule& module : model.map.modules) {
    Size& role = result.roles[std::string(role_name(module.role))];
    ++role.modules;
    role.elements += module.elements();
    result.parameters += module.elements();
    if (is_expert(module.role)) result.experts = std::max(result.experts, module.experts());
  }
  for (const io::StoredTensor& tensor : model.checkpoint->tensors) {
    Size& dtype = result.dtypes[io::storage_text(tensor)];
    ++dtype.modules;
    dtype.bytes += tensor.bytes;
    result.source_bytes += tensor.bytes;
    if (const auto format = numerics::lossless_affine(tensor.info.dtype))
      dtype.lossless = numerics::format_text(*format);
  }
  SLUICE_ASSIGN(result.uniform, uniform_sizes(model));
  const auto runs = model::read_config(*model.checkpoint, model.map);
  if (!runs) result.runs_not = runs.error().message;
  return result;
}

Json to_json(const OpenedModel& model, const Inspection& result) {
  Json roles = Json::object(), dtypes = Json::object(), uniform = Json::object(),
       devices = Json::object(), smaller = Json::object();
  for (const auto& [name, size] : result.roles)
    roles[name] = {{"modules", size.modules}, {"elements", size.elements}};
  for (const auto& [name, size] : result.dtypes) {
    dtypes[name] = {{"tensors", size.modules}, {"bytes", size.bytes}};
    if (!size.lossless.empty()) dtypes[name]["lossless"] = size.lossless;
  }
  for (const UniformSize& size : result.uniform) {
    uniform[numerics::format_text(size.format)] = size.bytes;
    if (size.smaller_group > 0) smaller[numerics::format_text(size.format)] = size.smaller_group;
  }
  for (const allocate::DeviceProfile& device : result.devices)
    devices[device.name] = widest_fit(device, result.uniform);
  return {{"family", model.map.family},
          {"parameters", result.parameters},
          {"layers", model.map.layers},
          {"only_layers", model.map.only_layers},
          {"experts", result.experts > 1 ? result.experts : 0},
          {"tied", model.map.tied},
          {"runs", result.runs_not.empty()},
          {"runs_not", result.runs_not},
          {"output_dtype", model.map.dtype_name},
          {"files", model.checkpoint->files.size()},
          {"source_bytes", result.source_bytes},
          {"source", model.checkpoint->identity_digest().hex()},
          {"dtypes", std::move(dtypes)},
          {"roles", std::move(roles)},
          {"uniform_bytes", std::move(uniform)},
          {"uniform_smaller_group_modules", std::move(smaller)},
          {"devices", std::move(devices)},
          {"dropped", model.map.dropped},
          {"notes", model.map.notes}};
}

// "1.2 GB in 3 GGUF files (64 × F32, 32 × Q4_K)".
std::string source_text(const OpenedModel& model, const Inspection& result) {
  std::string dtypes;
  for (const auto& [name, size] : result.dtypes)
    dtypes += fmt::format("{}{} × {}", dtypes.empty() ? "" : ", ", size.modules, name);
  const size_t files = model.checkpoint->files.size();
  return fmt::format("{} in {} {}{} ({})", bytes_text(result.source_bytes), files,
                     model.checkpoint->kind == io::SourceKind::kGguf ? "GGUF " : "",
                     files == 1 ? "file" : "files", dtypes);
}

// What a GGUF model is stored as, type by type.
std::string stored_text(const Inspection& result) {
  Table stored({Align::kLeft, Align::kRight, Align::kRight, Align::kLeft});
  stored.add({"stored as", "tensors", "bytes", "moves without loss to"});
  for (const auto& [name, size] : result.dtypes)
    stored.add({name, fmt::format("{}", size.modules), bytes_text(size.bytes), size.lossless});
  return stored.text("  ") + "\n";
}

// Starred where some modules take a smaller group than the column's.
std::string size_text(const UniformSize& size) {
  return bytes_text(size.bytes) + (size.smaller_group > 0 ? " *" : "  ");
}

// The legend of the stars; empty without any.
std::string smaller_group_text(std::span<const UniformSize> sizes) {
  std::map<uint16_t, uint64_t> modules;  // by group: the same at every width
  for (const UniformSize& size : sizes)
    if (size.smaller_group > 0) modules[size.format.group_size] = size.smaller_group;
  std::string text;
  for (const auto& [group, count] : modules)
    text +=
        fmt::format("  * {} does not divide the rows of {} {}: smaller groups there, or 16 bits\n",
                    group, count, count == 1 ? "module" : "modules");
  return text;
}

std::string to_text(const OpenedModel& model, const Inspection& result) {
  Table facts({Align::kLeft, Align::kLeft});
  facts.add({"family", model.map.family});
  facts.add({"parameters", count_text(result.parameters)});
  facts.add({"layers", fmt::format("{}", model.map.layers)});
  if (result.experts > 1) facts.add({"experts", fmt::format("{}", result.experts)});
  facts.add({"head", model.map.tied ? "tied to the embedding" : "its own"});
  facts.add({"source", source_text(model, result)});
  facts.add({"output dtype", model.map.dtype_name});
  facts.add({"runs", result.runs_not.empty() ? "yes" : fmt::format("no: {}", result.runs_not)});

  Table roles({Align::kLeft, Align::kRight, Align::kRight});
  roles.add({"role", "modules", "weights"});
  for (const auto& [name, size] : result.roles)
    roles.add({name, fmt::format("{}", size.modules),
               fmt::format("{:.1f} %", 100 * static_cast<double>(size.elements) /
                                           static_cast<double>(result.parameters))});
  Table uniform({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  uniform.add({"bits", "group 32", "group 64", "group 128"});
  for (size_t i = 0; i < numerics::kAffineCandidates; i += 3)
    uniform.add({fmt::format("{}", result.uniform[i].format.bits), size_text(result.uniform[i]),
                 size_text(result.uniform[i + 1]), size_text(result.uniform[i + 2])});
  for (size_t i = numerics::kAffineCandidates; i < result.uniform.size(); ++i)
    uniform.add(
        {numerics::format_text(result.uniform[i].format), bytes_text(result.uniform[i].bytes)});
  Table devices({Align::kLeft, Align::kRight, Align::kLeft});
  devices.add({"uniform", "bytes", "fits from"});
  for (const UniformSize& size : result.uniform)
    if (is_yardstick(size.format))
      devices.add({numerics::format_text(size.format), bytes_text(size.bytes),
                   smallest_device(result.devices, size.bytes)});
  const bool gguf = model.checkpoint->kind == io::SourceKind::kGguf;
  return fmt::format("{}\n{}{}\nWeight files at each uniform format:\n{}{}\n{}", facts.text("  "),
                     gguf ? stored_text(result) : "", roles.text("  "), uniform.text("  "),
                     smaller_group_text(result.uniform), devices.text("  "));
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const OpenedModel model,
                open_model(context, options.model, options.dtype, options.layers));
  SLUICE_ASSIGN(const Inspection result, inspect(context, model));
  if (context.options.json)
    context.print_json(to_json(model, result));
  else
    context.print(to_text(model, result));
  return kExitSuccess;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "inspect", "what a model is and what it would take, from its headers alone");
  command
      ->add_option("MODEL", options->model,
                   "folder with safetensors, a .gguf file, hf://org/name or an https address")
      ->type_name("PATH")
      ->required();
  add_dtype_option(*command, options->dtype);
  add_layers_option(*command, options->layers);
  command->footer(
      "Examples:\n"
      "  sluice inspect ./Qwen3-8B\n"
      "  sluice inspect model.gguf --json");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
