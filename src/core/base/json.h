// The JSON facade: bounded, strict parsing that returns errors instead of throwing, and typed
// access that names the key. Wraps nlohmann::json; no other file may rely on its exceptions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sluice {

// Keys are kept sorted, as mlx_lm writes them.
using Json = nlohmann::json;
using JsonSax = nlohmann::json_sax<Json>;

inline constexpr size_t kJsonDepthMax = 64;

// label names the file in errors. Rejects trailing bytes, depth > kJsonDepthMax, invalid UTF-8,
// duplicate keys and numbers outside the range of a double.
Result<Json> parse_json(std::string_view text, std::string_view label);

// Streams events to handler without building a tree (headers of a hundred megabytes). The handler
// returns false to stop; the error is then the handler's own to report and kCorrupt is returned.
Status parse_json_events(std::string_view text, std::string_view label, JsonSax& handler);

// indent < 0: one line. Invalid UTF-8 in strings is replaced, never thrown.
std::string dump_json(const Json& value, int indent = -1);

// Typed access. The key must be present; the value must have the type and lie in [low, high].
Result<int64_t> json_int(const Json& object, std::string_view key, int64_t low, int64_t high,
                         std::string_view label);
Result<double> json_number(const Json& object, std::string_view key, std::string_view label);
Result<std::string> json_string(const Json& object, std::string_view key, std::string_view label);
Result<bool> json_bool(const Json& object, std::string_view key, std::string_view label);
Result<const Json*> json_object(const Json& object, std::string_view key, std::string_view label);
Result<const Json*> json_array(const Json& object, std::string_view key, std::string_view label);

// The value at key, or nullptr when object is no object, the key is absent or its value is null.
const Json* json_find(const Json& object, std::string_view key);

}  // namespace sluice
