// What stands between a family's marks, as calls.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ordered_json.h"
#include "chat/tool_calls.h"

namespace sluice::chat {

struct WrittenCall {
  std::string id = {};  // empty where the form has none
  std::string name;
  std::string arguments;  // a JSON object, as written where it is written as JSON
};

// body: the text of a block without its marks. tools: OpenAI's list, for the types of parameters.
// None where it is not what the family writes: every call has a name and an object.
std::optional<std::vector<WrittenCall>> read_calls(ToolFamily family, std::string_view body,
                                                   const OrderedJson& tools);

// The name in "functions.name:0".
std::string_view kimi_name(std::string_view id);

// The text of a JSON object, blank space around it left out; none if it is none. Nothing at all is
// an empty object.
std::optional<std::string> object_text(std::string_view text);

}  // namespace sluice::chat
