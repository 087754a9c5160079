// Functions and their arguments in OpenAI's form.
#include "chat/tools/function.h"

namespace sluice::chat {

OrderedJson function_json(std::string_view name, std::string_view description,
                          std::initializer_list<FunctionParameter> required,
                          std::initializer_list<FunctionParameter> optional) {
  OrderedJson properties = OrderedJson::object(), names = OrderedJson::array();
  for (const auto* list : {&required, &optional})
    for (const FunctionParameter& parameter : *list)
      properties[std::string(parameter.name)] = {{"type", "string"},
                                                 {"description", parameter.description}};
  for (const FunctionParameter& parameter : required) names.push_back(parameter.name);
  return {{"type", "function"},
          {"function",
           {{"name", name},
            {"description", description},
            {"parameters",
             {{"type", "object"},
              {"properties", properties},
              {"required", names},
              {"additionalProperties", false}}}}}};
}

Result<std::string> text_argument(const Json& arguments, std::string_view name, size_t bytes_max) {
  const Json* value = json_find(arguments, name);
  if (value == nullptr || !value->is_string())
    return fail(ErrorCode::kInvalidArgument, "the argument \"{}\" should be a text", name);
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > bytes_max)
    return fail(ErrorCode::kInvalidArgument, "the argument \"{}\" has {} bytes, more than {}", name,
                text.size(), bytes_max);
  return text;
}

Result<std::string> text_argument_or(const Json& arguments, std::string_view name, size_t bytes_max,
                                     std::string_view fallback) {
  if (json_find(arguments, name) == nullptr) return std::string(fallback);
  return text_argument(arguments, name, bytes_max);
}

}  // namespace sluice::chat
