// Functions as models are told of them, and the arguments that come back. Private to the tools.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/ordered_json.h"

namespace sluice::chat {

struct FunctionParameter {
  std::string_view name, description;
};

// All parameters are texts. An entry of OpenAI's list of tools.
OrderedJson function_json(std::string_view name, std::string_view description,
                          std::initializer_list<FunctionParameter> required,
                          std::initializer_list<FunctionParameter> optional);

// kInvalidArgument, for the model to read, when it lacks, is no text, or has more than bytes_max.
Result<std::string> text_argument(const Json& arguments, std::string_view name, size_t bytes_max);
// fallback: where it lacks.
Result<std::string> text_argument_or(const Json& arguments, std::string_view name, size_t bytes_max,
                                     std::string_view fallback);

}  // namespace sluice::chat
