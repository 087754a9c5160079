// JSON whose objects keep their keys in the order in which they stand in the text: what users write
// for a model to read (schemas, tools) or for it to be held to. Json, with sorted keys, is for
// everything else; either converts to the other.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include "base/json.h"

namespace sluice {

// Looking a key up takes time in proportion to the number of keys.
using OrderedJson = nlohmann::ordered_json;

// As parse_json.
Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view label);

// As those of Json. Templates, so that what converts to both still means Json.
template <std::same_as<OrderedJson> Value>
std::string dump_json(const Value& value, int indent = -1) {
  return value.dump(indent, ' ', false, Value::error_handler_t::replace);
}

template <std::same_as<OrderedJson> Value>
const Value* json_find(const Value& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace sluice
