// The folder of real model files, which tests skip without.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "base/json.h"

namespace sluice::tokenizer::testing {

inline std::optional<std::filesystem::path> real_inputs(const std::string& part) {
  const char* folder = std::getenv("SLUICE_REAL_INPUTS");
  if (folder == nullptr) return std::nullopt;
  const auto path = std::filesystem::path(folder) / part;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

// Empty where there is no such file.
inline std::string read_text(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

}  // namespace sluice::tokenizer::testing
