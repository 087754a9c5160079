// Settings from the environment (SLUICE_THREADS, SLUICE_FIT_BEST) and from config.toml, under the
// names of the command-line options: a global option is a key at the top level, a command's option
// a key in the table of that command. The command line wins over the environment, that over the
// file, that over built-in defaults.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/storage.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sluice::cli {

// The value of an environment variable, or null; getenv but in tests.
using Environment = std::function<const char*(const char* name)>;

// $XDG_CONFIG_HOME/sluice, else ~/.config/sluice; empty when neither variable is an absolute path.
std::string config_folder(const Environment& environment);

// The text of a settings file; empty when it is not there.
Result<std::string> read_settings_file(io::Storage& storage, const std::string& path);

// What an option is and why. For `sluice doctor`.
struct Setting {
  std::string name;    // "threads", "fit.best"
  std::string value;   // as one would type it; empty: not set
  std::string origin;  // "command line", "SLUICE_THREADS", "…/config.toml:3", "default"
};

// One thread.
class Settings {
 public:
  // Gives the tree's options the values found, as their defaults. app must outlive this. Errors
  // name the variable, or file and line; unknown keys are errors, unknown variables are not ours.
  Status apply(CLI::App& app, io::Storage& storage, const Environment& environment);
  // Every option that can be set, in the tree's order; after the command line was parsed.
  std::vector<Setting> list() const;

 private:
  struct Entry {
    CLI::Option* option;
    std::string name, origin;
  };
  Status apply_file(CLI::App& app, io::Storage& storage, const std::string& path);

  std::vector<Entry> entries_;
};

}  // namespace sluice::cli
