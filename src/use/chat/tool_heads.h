// Calls whose arguments are JSON, while their text still comes: where the next call's arguments
// begin. Other forms, and calls in another order, are read when their block is whole
// (tool_bodies.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "chat/tool_calls.h"

namespace sluice::chat {

struct CallHead {
  std::string id = {};  // empty where nothing before the arguments says it
  std::string name = {};
  size_t end = 0;          // where the arguments' '{' stands
  bool in_object = false;  // within an object that ends behind them
};

// kNo: what follows is no call whose arguments can be told as they come. More text changes neither
// kYes nor kNo.
enum class HeadFound : uint8_t { kMore, kYes, kNo };

// text: of a block behind its opening mark, or behind a call within it.
HeadFound find_head(ToolFamily family, std::string_view text, CallHead& head);

// A message of harmony's: what its header says.
struct Channel {
  bool reasoning = false;
  std::string function;  // empty: a text
};
// header: up to <|message|>.
Channel read_header(std::string_view header);

// What stands behind a call in its block and is no part of the form: empty, but for a further call
// that was not told or something that is none.
std::string_view left_behind_call(ToolFamily family, std::string_view text);

}  // namespace sluice::chat
