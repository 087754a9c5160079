// TOML as the settings files use it: a flat list of what stands where, with lines for messages.
// The facade of toml++; no other file includes it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::cli {

struct TomlEntry {
  std::vector<std::string> path;  // {"fit", "best"}
  bool table = false;             // a table's own header; it has no text
  std::string text;               // the value as one would type it; a list's elements by commas
  uint32_t line = 0;              // from 1

  // The path as TOML spells it, names with spaces in quotes.
  std::string name() const;
};

// In the order of the lines. Errors: kCorrupt naming label and line for bad syntax, and for dates
// and lists of anything but plain values, which no setting takes.
Result<std::vector<TomlEntry>> parse_toml(std::string_view text, std::string_view label);

}  // namespace sluice::cli
