#include "cli/completions.h"

#include <fmt/format.h>

namespace sluice::cli {
namespace {

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

std::vector<std::string> command_names(const CommandInfo& tree) {
  std::vector<std::string> names;
  for (const CommandInfo& command : tree.commands) names.push_back(command.name);
  return names;
}

std::vector<std::string> option_names(const CommandInfo& command) {
  std::vector<std::string> names;
  for (const OptionInfo& option : command.options)
    if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::string replaced(std::string_view text, char from, std::string_view to) {
  std::string result;
  for (const char c : text) {
    if (c == from)
      result += to;
    else
      result += c;
  }
  return result;
}

// One branch of bash's `case $command:$previous`, for an option with a value.
std::string bash_value(const std::string& command, const OptionInfo& option) {
  std::vector<std::string> patterns;
  for (const std::string& name : option.names)
    patterns.push_back(fmt::format("{}:{}", command, name));
  std::string action = ":";  // nothing to offer
  if (!option.choices.empty())
    action =
        fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", joined(option.choices, " "));
  else if (option.takes_path())
    action = "_sluice_paths";
  return fmt::format("    {}) {}; return ;;\n", joined(patterns, "|"), action);
}

std::string bash_values(const CommandInfo& command, const std::string& pattern) {
  std::string text;
  for (const OptionInfo& option : command.options)
    if (!option.positional && option.takes_value()) text += bash_value(pattern, option);
  return text;
}

// The values of a positional with few of them; a path otherwise.
std::string bash_positionals(const CommandInfo& command) {
  for (const OptionInfo& option : command.options)
    if (option.positional)
      return option.choices.empty() ? "_sluice_paths"
                                    : fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$word\"))",
                                                  joined(option.choices, " "));
  return ":";
}

// Inside single quotes of zsh's _arguments, where brackets and colons have a meaning.
std::string zsh_text(const std::string& text) {
  std::string escaped = replaced(text, '\'', "'\\''");
  escaped = replaced(escaped, '[', "\\[");
  escaped = replaced(escaped, ']', "\\]");
  return replaced(escaped, ':', "\\:");
}

std::string zsh_action(const OptionInfo& option) {
  if (!option.choices.empty()) return "(" + joined(option.choices, " ") + ")";
  return option.takes_path() ? "_files" : "";
}

std::string zsh_option(const OptionInfo& option) {
  if (option.positional)
    return fmt::format("'{}:{}:{}'", option.required ? "" : ":", zsh_text(option.names[0]),
                       zsh_action(option));
  const std::string value =
      option.takes_value() ? fmt::format(":{}:{}", zsh_text(option.value), zsh_action(option)) : "";
  const std::string text = fmt::format("'[{}]{}'", zsh_text(option.description), value);
  if (option.names.size() == 1) return option.names[0] + text;
  return fmt::format("'({})'{{{}}}{}", joined(option.names, " "), joined(option.names, ","), text);
}

std::string fish_text(const std::string& text) {
  return replaced(replaced(text, '\\', "\\\\"), '\'', "\\'");
}

std::string fish_option(const OptionInfo& option, const std::string& condition) {
  std::string line = "complete -c sluice" + condition;
  for (const std::string& name : option.names)
    line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (!option.choices.empty())
    line += fmt::format(" -x -a '{}'", joined(option.choices, " "));
  else if (option.takes_value())
    line += option.takes_path() ? " -r -F" : " -x";
  return line + fmt::format(" -d '{}'\n", fish_text(option.description));
}

}  // namespace

std::string bash_completion(const CommandInfo& tree) {
  const std::string names = joined(command_names(tree), "|");
  std::string values = bash_values(tree, "*"), options, positionals;
  for (const CommandInfo& command : tree.commands) {
    values += bash_values(command, command.name);
    options += fmt::format("    {}) options+=' {}' ;;\n", command.name,
                           joined(option_names(command), " "));
    positionals += fmt::format("    {}) {} ;;\n", command.name, bash_positionals(command));
  }
  return fmt::format(R"(# bash completion for sluice; made by `sluice completions bash`.
_sluice_paths() {{
  local IFS=$'\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$word"))
}}

_sluice() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command= i
  local options='{}'
  COMPREPLY=()
  # --option=value arrives as three words.
  if [[ $word == '=' ]]; then
    word=
  elif [[ $previous == '=' ]]; then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      {}) command=${{COMP_WORDS[i]}}; break ;;
    esac
  done
  case $command:$previous in
{}  esac
  case $command in
{}  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
    return
  fi
  case $command in
{}    *) COMPREPLY=($(compgen -W '{}' -- "$word")) ;;
  esac
}}
complete -F _sluice sluice
)",
                     joined(option_names(tree), " "), names, values, options, positionals,
                     joined(command_names(tree), " "));
}

std::string zsh_completion(const CommandInfo& tree) {
  std::string global, commands, branches;
  for (const OptionInfo& option : tree.options)
    global += fmt::format("    {}\n", zsh_option(option));
  for (const CommandInfo& command : tree.commands) {
    commands += fmt::format("        '{}:{}'\n", command.name, zsh_text(command.description));
    branches += fmt::format("        {})\n          _arguments \"$global[@]\"", command.name);
    for (const OptionInfo& option : command.options)
      if (option.names[0] != "-h") branches += " \\\n            " + zsh_option(option);
    branches += "\n          ;;\n";
  }
  return fmt::format(R"(#compdef sluice
# zsh completion for sluice; made by `sluice completions zsh`.
_sluice() {{
  local context state line
  typeset -A opt_args
  local -a global commands
  global=(
{}  )
  _arguments -C "$global[@]" '1: :->command' '*:: :->arguments'
  case $state in
    command)
      commands=(
{}      )
      _describe -t commands command commands
      ;;
    arguments)
      case $words[1] in
{}      esac
      ;;
  esac
}}
if [ "$funcstack[1]" = _sluice ]; then
  _sluice "$@"
else
  compdef _sluice sluice
fi
)",
                     global, commands, branches);
}

std::string fish_completion(const CommandInfo& tree) {
  std::string text =
      "# fish completion for sluice; made by `sluice completions fish`.\ncomplete -c sluice -f\n";
  for (const OptionInfo& option : tree.options) text += fish_option(option, "");
  for (const CommandInfo& command : tree.commands)
    text += fmt::format("complete -c sluice -n __fish_use_subcommand -a {} -d '{}'\n", command.name,
                        fish_text(command.description));
  for (const CommandInfo& command : tree.commands) {
    const std::string condition = fmt::format(" -n '__fish_seen_subcommand_from {}'", command.name);
    for (const OptionInfo& option : command.options) {
      if (!option.positional && option.names[0] != "-h") text += fish_option(option, condition);
      if (option.positional)
        text += option.choices.empty() ? fmt::format("complete -c sluice{} -F\n", condition)
                                       : fmt::format("complete -c sluice{} -a '{}'\n", condition,
                                                     joined(option.choices, " "));
    }
  }
  return text;
}

}  // namespace sluice::cli
