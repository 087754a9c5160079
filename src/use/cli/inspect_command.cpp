// `sluice inspect`: what a model is and what it would take, from headers, or from its configuration
// alone before it is downloaded.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/units.h"
#include "cli/inspection.h"
#include "numerics/affine_price.h"

namespace sluice::cli {
namespace {

constexpr size_t kLineWidth = 100;
constexpr numerics::QuantFormat kCommonFormat = {numerics::QuantMode::kAffine, 4, 64};

struct Options {
  std::string model, dtype, layers, device;
  uint64_t context_tokens = 8192;
};

// "about 284 billion".
std::string about_text(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000'000) return fmt::format("about {:.3g} trillion", value / 1e12);
  if (count >= 1'000'000'000) return fmt::format("about {:.3g} billion", value / 1e9);
  return fmt::format("about {:.3g} million", value / 1e6);
}

// "8.19 billion", "134.5 million".
std::string count_text(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000'000) return fmt::format("{:.3f} trillion", value / 1e12);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} billion", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.1f} million", value / 1e6);
  return fmt::format("{}", count);
}

std::string widest_text(const DeviceFit& fit) {
  return fit.widest == nullptr ? "streams" : numerics::format_text(fit.widest->format);
}

std::string_view basis_name(Basis basis) {
  switch (basis) {
    case Basis::kWeights: return "weights";
    case Basis::kConfig: return "config";
    case Basis::kEstimate: return "estimate";
  }
  SLUICE_CHECK(false);
}

Json to_json(const Inspection& result) {
  Json roles = Json::object(), dtypes = Json::object(), uniform = Json::object(),
       devices = Json::object(), smaller = Json::object(), left = Json::object();
  for (const auto& [name, size] : result.roles)
    roles[name] = {{"modules", size.modules}, {"elements", size.elements}};
  for (const auto& [name, size] : result.stored) {
    dtypes[name] = {{"tensors", size.tensors}, {"bytes", size.bytes}};
    if (!size.lossless.empty()) dtypes[name]["lossless"] = size.lossless;
  }
  for (const UniformSize& size : result.uniform) {
    uniform[numerics::format_text(size.format)] = size.bytes;
    if (size.smaller_group > 0) smaller[numerics::format_text(size.format)] = size.smaller_group;
  }
  for (const allocate::DeviceProfile& device : result.devices) {
    const DeviceFit fit = result.fit(device);
    devices[device.name] = widest_text(fit);
    left[device.name] = fit.weight_bytes_max;
  }
  Json json = {{"model_type", result.model_type},
               {"family", result.family},
               {"sizes_from", basis_name(result.basis)},
               {"parameters", result.parameters},
               {"active_parameters", result.active_parameters},
               {"layers", result.map.layers},
               {"only_layers", result.map.only_layers},
               {"experts", result.experts},
               {"experts_per_token", result.experts_per_token},
               {"tied", result.map.tied},
               {"prepares", !result.refused.has_value()},
               {"prepares_if", result.prepares_if},
               {"prepares_not", result.refused ? result.refused->message : ""},
               {"runs", result.runs_not.empty()},
               {"runs_not", result.runs_not},
               {"output_dtype", result.map.dtype_name},
               {"files", result.source_files},
               {"source_bytes", result.source_bytes},
               {"dtypes", std::move(dtypes)},
               {"roles", std::move(roles)},
               {"uniform_bytes", std::move(uniform)},
               {"uniform_smaller_group_modules", std::move(smaller)},
               {"context_tokens", result.context_tokens},
               {"kv_bytes", result.kv_bytes},
               {"devices", std::move(devices)},
               {"device_weight_bytes_max", std::move(left)},
               {"dropped", result.map.dropped},
               {"notes", result.map.notes}};
  if (result.basis == Basis::kWeights) json["source"] = result.checkpoint->identity_digest().hex();
  if (result.refused)
    json["error"] = {{"code", error_code_name(result.refused->code)},
                     {"message", result.refused->message}};
  return json;
}

// ---- text ----

std::string files_text(uint64_t files, bool gguf) {
  return fmt::format("{} {}{}", files, gguf ? "GGUF " : "", files == 1 ? "file" : "files");
}

// "1.2 GB in 3 GGUF files (64 × F32, 32 × Q4_K)", or what there is instead of weights.
std::string source_text(const Inspection& result) {
  if (result.basis == Basis::kWeights) {
    std::string dtypes;
    for (const auto& [name, size] : result.stored)
      dtypes += fmt::format("{}{} × {}", dtypes.empty() ? "" : ", ", size.tensors, name);
    const bool gguf = result.checkpoint->kind == io::SourceKind::kGguf;
    return fmt::format("{} in {} ({})", bytes_text(result.source_bytes),
                       files_text(result.source_files, gguf), dtypes);
  }
  if (result.source_files == 0) return "the configuration; no weights were looked at";
  const std::string bytes =
      result.source_bytes == 0 ? "" : bytes_text(result.source_bytes) + " in ";
  return fmt::format("configuration and index; the weights are {}{}", bytes,
                     files_text(result.source_files, false));
}

std::string parameters_text(const Inspection& result) {
  const auto text = result.basis == Basis::kEstimate ? about_text : count_text;
  if (result.active_parameters == result.parameters) return text(result.parameters);
  return fmt::format("{}, of which a token uses {}", text(result.parameters),
                     text(result.active_parameters));
}

std::string experts_text(const Inspection& result) {
  if (result.experts_per_token == 0) return fmt::format("{}", result.experts);
  return fmt::format("{}, {} for a token", result.experts, result.experts_per_token);
}

// A reason in a report on one model need not name it.
std::string reason(const Inspection& result, std::string_view message) {
  for (const std::string& prefix : {result.checkpoint->path + ": ", std::string("config.json: ")})
    if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  return std::string(message);
}

std::string prepares_text(const Inspection& result) {
  if (result.refused) return "no: " + reason(result, result.refused->message);
  return result.prepares_if.empty() ? "yes" : result.prepares_if;
}

std::string runs_text(const Inspection& result) {
  return result.runs_not.empty() ? "yes" : "no: " + reason(result, result.runs_not);
}

std::string family_text(const Inspection& result) {
  if (result.family == result.model_type || result.model_type.empty()) return result.family;
  return fmt::format("{} ({})", result.family.empty() ? "not supported" : result.family,
                     result.model_type);
}

// The name's column and what follows it, in lines that fit a window.
void add_fact(Table& facts, const std::string& name, const std::string& value) {
  constexpr size_t kNameWidth = 16;
  const std::vector<std::string> lines = wrapped(value, kLineWidth - kNameWidth);
  for (size_t i = 0; i < lines.size(); ++i) facts.add({i == 0 ? name : "", lines[i]});
}

std::string facts_text(const Inspection& result) {
  Table facts({Align::kLeft, Align::kLeft});
  add_fact(facts, "family", family_text(result));
  if (result.parameters > 0) {
    add_fact(facts, "parameters", parameters_text(result));
    add_fact(facts, "layers", fmt::format("{}", result.map.layers));
  }
  if (result.experts > 0) add_fact(facts, "experts", experts_text(result));
  if (result.basis != Basis::kEstimate)
    add_fact(facts, "head", result.map.tied ? "tied to the embedding" : "its own");
  add_fact(facts, "source", source_text(result));
  if (!result.map.dtype_name.empty()) add_fact(facts, "output dtype", result.map.dtype_name);
  add_fact(facts, "prepares", prepares_text(result));
  add_fact(facts, "runs", runs_text(result));
  return facts.text("  ");
}

// What a GGUF model is stored as, type by type.
std::string stored_text(const Inspection& result) {
  Table stored({Align::kLeft, Align::kRight, Align::kRight, Align::kLeft});
  stored.add({"stored as", "tensors", "bytes", "moves without loss to"});
  for (const auto& [name, size] : result.stored)
    stored.add({name, fmt::format("{}", size.tensors), bytes_text(size.bytes), size.lossless});
  return stored.text("  ") + "\n";
}

std::string roles_text(const Inspection& result) {
  Table roles({Align::kLeft, Align::kRight, Align::kRight});
  roles.add({"role", "modules", "weights"});
  for (const auto& [name, size] : result.roles)
    roles.add({name, fmt::format("{}", size.modules),
               fmt::format("{:.1f} %", 100 * static_cast<double>(size.elements) /
                                           static_cast<double>(result.parameters))});
  return roles.text("  ") + "\n";
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

std::string uniform_text(const Inspection& result) {
  Table uniform({Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  uniform.add({"bits", "group 32", "group 64", "group 128"});
  for (size_t i = 0; i < numerics::kAffineCandidates; i += 3)
    uniform.add({fmt::format("{}", result.uniform[i].format.bits), size_text(result.uniform[i]),
                 size_text(result.uniform[i + 1]), size_text(result.uniform[i + 2])});
  for (size_t i = numerics::kAffineCandidates; i < result.uniform.size(); ++i)
    uniform.add(
        {numerics::format_text(result.uniform[i].format), bytes_text(result.uniform[i].bytes)});
  return fmt::format("Weight files at each uniform format{}:\n{}{}\n",
                     result.basis == Basis::kEstimate ? ", about" : "", uniform.text("  "),
                     smaller_group_text(result.uniform));
}

// The least memory of a device of that kind whose model memory holds the weights, keys and values.
std::string least_device(const Inspection& result, std::string_view kind, uint64_t bytes) {
  const allocate::DeviceProfile* least = nullptr;
  for (const allocate::DeviceProfile& device : result.devices)
    if (device.kind == kind && result.fit(device).weight_bytes_max >= bytes &&
        (least == nullptr || device.memory_bytes < least->memory_bytes))
      least = &device;
  if (least == nullptr) return "–";
  constexpr uint64_t kGib = 1ull << 30;
  return fmt::format("{} GB", (least->memory_bytes + kGib / 2) / kGib);
}

constexpr std::pair<std::string_view, std::string_view> kKinds[] = {{"mac", "Mac"},
                                                                    {"plain", "other machine"},
                                                                    {"nvidia", "Nvidia card"},
                                                                    {"ipad", "iPad"},
                                                                    {"iphone", "iPhone"}};

// What memory each uniform format asks for.
std::string memory_text(const Inspection& result) {
  std::vector<Align> columns(2 + std::size(kKinds), Align::kRight);
  columns[0] = Align::kLeft;
  Table table(columns);
  std::vector<std::string> head = {"uniform", "bytes"};
  for (const auto& [kind, name] : kKinds) head.emplace_back(name);
  table.add(head);
  for (const UniformSize& size : result.uniform) {
    if (!is_yardstick(size.format)) continue;
    std::vector<std::string> row = {numerics::format_text(size.format), bytes_text(size.bytes)};
    for (const auto& [kind, name] : kKinds) row.push_back(least_device(result, kind, size.bytes));
    table.add(row);
  }
  return fmt::format(
      "Memory from which it fits, with {} of keys and values ({} tokens of context):\n{}"
      "  – is more than any profile has: weights would be read from disk while it runs\n",
      bytes_text(result.kv_bytes), result.context_tokens, table.text("  "));
}

// What reading weights allows at most, while one token after another is written: from memory those
// that a token uses; from disk its share of those that have no room.
std::string speed_text(const Inspection& result, const DeviceFit& fit, const UniformSize& size) {
  const double used = static_cast<double>(result.active_parameters) /
                      static_cast<double>(std::max<uint64_t>(result.parameters, 1));
  const double token_bytes = static_cast<double>(size.bytes) * used;
  const bool fits = size.bytes <= fit.weight_bytes_max;
  const double share = fits ? 1
                            : static_cast<double>(size.bytes - fit.weight_bytes_max) /
                                  static_cast<double>(size.bytes);
  const uint64_t rate = fits ? fit.device.memory_bytes_per_s : fit.device.disk_internal_bytes_per_s;
  if (rate == 0 || token_bytes == 0) return "";
  const double tokens = static_cast<double>(rate) / (token_bytes * share);
  return fmt::format("{}: a token reads {} from {} of {}/s: at most {} tokens/s",
                     numerics::format_text(size.format),
                     bytes_text(static_cast<uint64_t>(token_bytes * share)),
                     fits ? "memory" : "the internal disk", bytes_text(rate),
                     tokens >= 10 ? fmt::format("{:.0f}", tokens) : fmt::format("{:.1f}", tokens));
}

std::string uniform_name(const UniformSize& size) {
  return fmt::format("uniform {} ({})", numerics::format_text(size.format), bytes_text(size.bytes));
}

// Indented, in lines that fit a window.
std::string paragraph(const std::string& text) {
  std::string lines;
  for (const std::string& line : wrapped(text, kLineWidth - 2)) lines += "  " + line + "\n";
  return lines;
}

// What one device would do with it.
std::string device_text(const Inspection& result, const DeviceFit& fit, const std::string& model) {
  const std::string head =
      fmt::format("{}: {} of its {} are for a model", fit.device.name,
                  bytes_text(fit.device.usable_bytes), bytes_text(fit.device.memory_bytes));
  if (fit.weight_bytes_max == 0)
    return paragraph(fmt::format("{}, which the keys and values of {} tokens ({}) use up", head,
                                 result.context_tokens, bytes_text(result.kv_bytes)));
  const double bits =
      8 * static_cast<double>(fit.weight_bytes_max) / static_cast<double>(result.parameters);
  std::string text = paragraph(fmt::format(
      "{}. Beside {} of keys and values ({} tokens) and {} of scratch, {} are left for weights: "
      "{:.2f} bits for each.",
      head, bytes_text(result.kv_bytes), result.context_tokens,
      bytes_text(allocate::kRuntimeScratchBytes), bytes_text(fit.weight_bytes_max), bits));
  const UniformSize* common = result.uniform_at(kCommonFormat);
  SLUICE_CHECK(common != nullptr);
  const bool common_fits = common->bytes <= fit.weight_bytes_max;
  if (fit.widest == nullptr)
    text += paragraph(fmt::format(
        "Not even {} fits: weights would be read from disk while it runs.",
        uniform_name(*std::ranges::min_element(result.uniform, {}, &UniformSize::bytes))));
  else if (!common_fits)
    text += paragraph(
        fmt::format("{} does not fit, {} does.", uniform_name(*common), uniform_name(*fit.widest)));
  else
    text += paragraph(fmt::format("{} fits.", uniform_name(*fit.widest)));
  for (const UniformSize* size : {fit.widest, common_fits ? nullptr : common})
    if (size != nullptr)
      if (const std::string speed = speed_text(result, fit, *size); !speed.empty())
        text += paragraph(speed);
  if (fit.widest != nullptr && !result.refused)
    text += fmt::format("\nthe best mix for it: sluice fit {} --device {} -o OUT\n", model,
                        shell_word(fit.device.name));
  return text;
}

std::string to_text(const Inspection& result, const Options& options,
                    const allocate::DeviceProfile* device) {
  std::string text = facts_text(result) + "\n";
  if (result.checkpoint->kind == io::SourceKind::kGguf) text += stored_text(result);
  if (!result.roles.empty()) text += roles_text(result);
  if (result.uniform.empty()) return text;
  text += uniform_text(result);
  // Of a model that is not there yet, its future name is not known.
  const std::string model =
      result.basis == Basis::kWeights ? shell_word(options.model) : std::string("MODEL");
  text += device != nullptr ? device_text(result, result.fit(*device), model) : memory_text(result);
  return text;
}

Result<int> run(Context& context, const Options& options) {
  SLUICE_ASSIGN(const Inspection result, inspect_model(context, options.model, options.dtype,
                                                       options.layers, options.context_tokens));
  std::optional<allocate::DeviceProfile> device;
  if (!options.device.empty()) {
    SLUICE_ASSIGN(device, allocate::find_device(result.devices, options.device));
  }
  if (context.options.json)
    context.print_json(to_json(result));
  else
    context.print(to_text(result, options, device ? &*device : nullptr));
  if (!result.refused) return kExitSuccess;
  context.console->error(result.refused->message);
  return exit_code_of(result.refused->code);
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "inspect", "what a model is and what it would take, from headers or config.json alone");
  command
      ->add_option("MODEL", options->model,
                   "folder with safetensors, a .gguf file, a config.json without weights, "
                   "hf://org/name or an https address")
      ->type_name("PATH")
      ->required();
  command
      ->add_option("--device", options->device,
                   "what this device (see `sluice devices`) would do with it")
      ->check(name_check());
  command->add_option("--context", options->context_tokens, "tokens of context that it keeps")
      ->capture_default_str();
  add_dtype_option(*command, options->dtype);
  add_layers_option(*command, options->layers);
  command->footer(
      "Examples:\n"
      "  sluice inspect ./Qwen3-8B\n"
      "  sluice inspect ./Qwen3-30B-A3B/config.json --device \"M2 16GB\"\n"
      "  sluice inspect model.gguf --json\n\n"
      "Exit code 3 where the model cannot be prepared; what is known of it is shown all the same.");
  command->callback([&action, options] {
    action = [options](Context& context) { return run(context, *options); };
  });
}

}  // namespace sluice::cli
