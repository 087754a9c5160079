#include "cli/command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

namespace sluice::cli {
namespace {

// CLI11's type text is "TEXT", or "TEXT:" and a validator's description: "TEXT:SIZE",
// "UINT:{2,3,4}", "UINT:UINT in [0 - 1024]". A single word of capitals is the better name.
void read_type(const std::string& type, OptionInfo& info) {
  const size_t colon = type.find(':');
  info.value = type.substr(0, colon);
  if (colon == std::string::npos) return;
  const std::string detail = type.substr(colon + 1);
  if (detail.starts_with('{') && detail.ends_with('}'))
    info.choices = CLI::detail::split(detail.substr(1, detail.size() - 2), ',');
  else if (!detail.empty() &&
           std::ranges::all_of(detail, [](char c) { return c >= 'A' && c <= 'Z'; }))
    info.value = detail;
}

OptionInfo describe_option(const CLI::Option& option) {
  OptionInfo info;
  info.positional = option.get_positional();
  info.required = option.get_required();
  info.description = option.get_description();
  info.default_text = option.get_default_str();
  if (info.positional) {
    info.names = {option.get_name(true)};
  } else {
    for (const std::string& name : option.get_snames()) info.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) info.names.push_back("--" + name);
  }
  if (option.get_items_expected_max() > 0) read_type(option.get_type_name(), info);
  return info;
}

// Groups are nameless subcommands of CLI11; their options are the command's own, but for the help
// flag that some versions give them too.
void describe_options(const CLI::App& app, std::vector<OptionInfo>& options) {
  for (const CLI::Option* option : app.get_options())
    if (!app.get_name().empty() || option != app.get_help_ptr())
      options.push_back(describe_option(*option));
  for (const CLI::App* group : app.get_subcommands(nullptr))
    if (group->get_name().empty()) describe_options(*group, options);
}

// The lines of a footer that are commands: indented by two, or behind "Example: ".
std::vector<std::string> examples_of(const std::string& footer) {
  constexpr std::string_view kOne = "Example: ";
  std::vector<std::string> examples;
  for (const std::string& line : CLI::detail::split(footer, '\n')) {
    if (line.starts_with("  ") && !line.starts_with("   ")) examples.push_back(line.substr(2));
    if (line.starts_with(kOne)) examples.push_back(line.substr(kOne.size()));
  }
  return examples;
}

bool may_be_set(const CLI::App& app, const CLI::Option* option) {
  return option != app.get_help_ptr() && option != app.get_version_ptr() &&
         !option->get_positional() && !option->get_required() && !option->get_lnames().empty();
}

}  // namespace

bool OptionInfo::takes_path() const {
  return choices.empty() &&
         (value == "FILE" || value == "FOLDER" || value == "PATH" || value == "TEXT");
}

CommandInfo describe_commands(const CLI::App& app) {
  CommandInfo info{app.get_name(), app.get_description(), {}, examples_of(app.get_footer()), {}};
  describe_options(app, info.options);
  std::ranges::stable_partition(info.options, [](const OptionInfo& o) { return !o.positional; });
  for (const CLI::App* command : app.get_subcommands(nullptr))
    if (!command->get_name().empty()) info.commands.push_back(describe_commands(*command));
  return info;
}

std::vector<SettableOption> settable_options(CLI::App& app) {
  std::vector<SettableOption> settable;
  const auto add = [&](CLI::App& owner, const std::string& command) {
    for (CLI::Option* option : owner.get_options())
      if (may_be_set(owner, option)) settable.push_back({option, command, option->get_lnames()[0]});
  };
  add(app, "");
  for (CLI::App* command : app.get_subcommands(nullptr))
    if (!command->get_name().empty()) add(*command, command->get_name());
  return settable;
}

}  // namespace sluice::cli
