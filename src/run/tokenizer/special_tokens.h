// The tokens with a meaning of their own, as a model's configuration files name them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice::tokenizer {

// By the names that templates use: "bos_token", "eos_token", "unk_token" and so on, those that
// there are; and "additional_special_tokens".
struct SpecialTexts {
  std::map<std::string, std::string> tokens;
  std::vector<std::string> additional;

  std::optional<std::string> find(const std::string& name) const;
};

// Texts of tokenizer_config.json and special_tokens_map.json, either may be empty; the first wins.
// A token is a string or an object with its content. kCorrupt for what is no JSON object.
Result<SpecialTexts> read_special_texts(std::string_view tokenizer_config,
                                        std::string_view special_tokens_map);

}  // namespace sluice::tokenizer
