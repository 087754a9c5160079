// Parts of a JSON text as they are written: what a model wrote keeps its order and its numbers.
#pragma once

#include <optional>
#include <string_view>

namespace sluice::chat {

// Where the value that text begins with ends; npos where it does not end, or begin. Looks at
// strings and brackets alone, so a parser has still to check the value.
size_t json_value_end(std::string_view text);

// The value of an object's key, the outermost level only. object: valid JSON.
std::optional<std::string_view> json_member(std::string_view object, std::string_view key);

// Without the blank space around it.
std::string_view trimmed(std::string_view text);

}  // namespace sluice::chat
