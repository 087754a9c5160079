#include "cli/settings.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>

#include "base/suggest.h"
#include "cli/command_tree.h"
#include "cli/toml.h"

namespace sluice::cli {
namespace {

constexpr uint64_t kSettingsBytesMax = 1 << 20;
constexpr std::string_view kDefaultOrigin = "default";
constexpr std::string_view kDevicesTable = "devices";  // user_devices.h reads it

std::string setting_name(const SettableOption& settable) {
  return settable.command.empty() ? settable.key : settable.command + "." + settable.key;
}

std::string variable_name(const std::string& setting) {
  std::string name = "SLUICE_";
  for (const char c : setting)
    name += std::isalnum(static_cast<unsigned char>(c))
                ? static_cast<char>(std::toupper(static_cast<unsigned char>(c)))
                : '_';
  return name;
}

// where: a variable, or a file and line.
Status set_default(CLI::Option& option, const std::string& text, const std::string& where) {
  try {
    option.run_callback_for_default()->default_val(text);
  } catch (const CLI::Error& error) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}", where, error.what());
  }
  return {};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

}  // namespace

std::string config_folder(const Environment& environment) {
  // The XDG specification: a relative path is ignored.
  if (const char* config = environment("XDG_CONFIG_HOME"); config != nullptr && config[0] == '/')
    return std::string(config) + "/sluice";
  if (const char* home = environment("HOME"); home != nullptr && home[0] == '/')
    return std::string(home) + "/.config/sluice";
  return "";
}

Result<std::string> read_settings_file(io::Storage& storage, const std::string& path) {
  if (!storage.exists(path)) return std::string();
  SLUICE_ASSIGN(const auto source, storage.open_source(path));
  return io::read_text(*source, kSettingsBytesMax);
}

Status Settings::apply_file(CLI::App& app, io::Storage& storage, const std::string& path) {
  SLUICE_ASSIGN(const std::string text, read_settings_file(storage, path));
  SLUICE_ASSIGN(const std::vector<TomlEntry> found, parse_toml(text, path));
  std::vector<std::string> known, tables = {std::string(kDevicesTable)};
  for (const Entry& entry : entries_) known.push_back(entry.name);
  for (const CLI::App* command : app.get_subcommands(nullptr))
    tables.push_back(command->get_name());
  for (const TomlEntry& entry : found) {
    if (entry.path.front() == kDevicesTable) continue;
    const std::string name = entry.name();
    const std::string where = fmt::format("{}:{}", path, entry.line);
    if (entry.table) {
      if (entry.path.size() > 1 || std::ranges::find(tables, name) == tables.end())
        return fail(ErrorCode::kInvalidArgument, "{}: there is no command \"{}\" to set{}", where,
                    name, did_you_mean(name, tables));
      continue;
    }
    const auto target = std::ranges::find(entries_, name, &Entry::name);
    if (target == entries_.end())
      return fail(ErrorCode::kInvalidArgument, "{}: unknown setting \"{}\"{}", where, name,
                  did_you_mean(name, known));
    SLUICE_TRY(set_default(*target->option, entry.text, where));
    target->origin = where;
  }
  return {};
}

Status Settings::apply(CLI::App& app, io::Storage& storage, const Environment& environment) {
  for (const SettableOption& settable : settable_options(app))
    entries_.push_back({settable.option, setting_name(settable), std::string(kDefaultOrigin)});
  if (const std::string folder = config_folder(environment); !folder.empty())
    SLUICE_TRY(apply_file(app, storage, folder + "/config.toml"));
  for (Entry& entry : entries_) {
    const std::string variable = variable_name(entry.name);
    const char* text = environment(variable.c_str());
    if (text == nullptr || text[0] == '\0') continue;
    SLUICE_TRY(set_default(*entry.option, text, variable));
    entry.origin = variable;
  }
  return {};
}

std::vector<Setting> Settings::list() const {
  std::vector<Setting> settings;
  for (const Entry& entry : entries_) {
    const bool typed = entry.option->count() > 0;
    settings.push_back({entry.name,
                        typed ? joined(entry.option->results()) : entry.option->get_default_str(),
                        typed ? "command line" : entry.origin});
  }
  return settings;
}

}  // namespace sluice::cli
