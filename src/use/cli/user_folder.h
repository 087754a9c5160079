// Where a user's own files lie, by the rules of the XDG base directories.
#pragma once

#include <cstdlib>
#include <string>

namespace sluice::cli {

// $variable/sluice, or ~/fallback/sluice; empty where neither is known.
inline std::string user_folder(const char* variable, const std::string& fallback) {
  if (const char* base = std::getenv(variable); base != nullptr && base[0] == '/')
    return std::string(base) + "/sluice";
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/')
    return std::string(home) + "/" + fallback + "/sluice";
  return "";
}

}  // namespace sluice::cli
