// What the program's settings are and why.
#pragma once

#include <string>

namespace sluice::cli {

// What an option is and why. For `sluice doctor`.
struct Setting {
  std::string name;    // "threads", "fit.best"
  std::string value;   // as one would type it; empty: not set
  std::string origin;  // "command line", "SLUICE_THREADS", "…/config.toml:3", "default"
};

}  // namespace sluice::cli
