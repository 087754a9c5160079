// The commands and options as plain data, read off the CLI11 definitions, so that settings,
// completions and the man page follow from the one place where options are declared.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sluice::cli {

struct OptionInfo {
  std::vector<std::string> names;    // "-o", "--output"; of a positional its one name
  std::string value;                 // what it takes: "FILE", "SIZE"; empty: a flag
  std::vector<std::string> choices;  // the values it takes, if they are few
  std::string description;
  std::string default_text;
  bool positional = false, required = false;

  bool takes_value() const { return !value.empty(); }
  // Whether a value may be a path: it is one, or nothing says what else it is.
  bool takes_path() const;
};

struct CommandInfo {
  std::string name, description;
  std::vector<OptionInfo> options;    // positionals last
  std::vector<std::string> examples;  // command lines, from the footer
  std::vector<CommandInfo> commands;
};

CommandInfo describe_commands(const CLI::App& app);

// An option that says how to work, and may therefore come from a file or the environment: it has a
// long name, is not required, and is not one of several that say what to do.
struct SettableOption {
  CLI::Option* option = nullptr;
  std::string command;  // empty: an option of every command
  std::string key;      // "sqnr-floor"
};
std::vector<SettableOption> settable_options(CLI::App& app);

}  // namespace sluice::cli
