#include "cli/usage_text.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/suggest.h"

namespace sluice::cli {
namespace {

bool takes_next_word(const CommandInfo& tree, const std::string& word) {
  return std::ranges::any_of(tree.options, [&](const OptionInfo& option) {
    return option.takes_value() && std::ranges::find(option.names, word) != option.names.end();
  });
}

// The first word that is neither an option nor the value of one that every command takes.
std::string first_word(const CommandInfo& tree, int argument_count, const char* const* arguments) {
  for (int i = 1; i < argument_count; ++i) {
    const std::string word = arguments[i];
    if (!word.starts_with('-')) return word;
    if (takes_next_word(tree, word)) ++i;
  }
  return "";
}

std::string unknown_command(const CommandInfo& tree, const std::string& word) {
  std::vector<std::string> names;
  std::string all;
  for (const CommandInfo& command : tree.commands) {
    names.push_back(command.name);
    all += (all.empty() ? "" : ", ") + command.name;
  }
  std::string meant = did_you_mean(word, names);
  if (meant.empty()) meant = fmt::format("; the commands are {}", all);
  return fmt::format("unknown command \"{}\"{}", word, meant);
}

std::string unknown_option(const CommandInfo& tree, const CLI::App& command,
                           const std::string& word) {
  std::vector<std::string> names;
  const auto add = [&](const CommandInfo& info) {
    for (const OptionInfo& option : info.options)
      if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  };
  const auto info = std::ranges::find(tree.commands, command.get_name(), &CommandInfo::name);
  if (info != tree.commands.end()) add(*info);
  add(tree);
  return fmt::format("`sluice {}` has no option {}{}", command.get_name(), word,
                     did_you_mean(word.substr(0, word.find('=')), names));
}

}  // namespace

std::string usage_text(const CLI::App& app, const CommandInfo& tree, const CLI::Error& error,
                       int argument_count, const char* const* arguments) {
  const auto commands = app.get_subcommands();
  if (commands.empty()) {
    const std::string word = first_word(tree, argument_count, arguments);
    return word.empty() ? error.what() : unknown_command(tree, word);
  }
  const std::vector<std::string> extras = app.remaining(true);
  if (!extras.empty() && extras.front().starts_with('-'))
    return unknown_option(tree, *commands.front(), extras.front());
  return error.what();
}

}  // namespace sluice::cli
