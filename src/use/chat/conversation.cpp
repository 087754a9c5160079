#include "chat/conversation.h"

#include <optional>

namespace sluice::chat {
namespace {

constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};

std::unexpected<Error> wrong(std::string_view label, std::string_view key,
                             std::string_view expected, const OrderedJson* found) {
  return fail(ErrorCode::kInvalidArgument, "{}.{} should be {}, found {}", label, key, expected,
              found == nullptr ? "nothing" : found->type_name());
}

// Empty where the key is absent or null.
Result<std::string> optional_text(const OrderedJson& object, std::string_view key,
                                  std::string_view label) {
  const OrderedJson* value = json_find(object, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return wrong(label, key, "a string", value);
  return value->get<std::string>();
}

Result<std::string> required_text(const OrderedJson& object, std::string_view key,
                                  std::string_view label) {
  SLUICE_ASSIGN(std::string text, optional_text(object, key, label));
  if (text.empty()) return wrong(label, key, "a string that is not empty", json_find(object, key));
  return text;
}

Result<Role> parse_role(const OrderedJson& message, std::string_view label) {
  SLUICE_ASSIGN(const std::string name, required_text(message, "role", label));
  for (size_t i = 0; i < std::size(kRoles); ++i)
    if (name == kRoles[i]) return static_cast<Role>(i);
  return fail(ErrorCode::kInvalidArgument,
              "{}.role should be system, developer, user, assistant or tool", label);
}

// A list of parts, joined.
Result<std::string> parse_parts(const OrderedJson& parts, std::string_view label) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part_label = fmt::format("{}.content[{}]", label, i);
    if (!parts[i].is_object())
      return fail(ErrorCode::kInvalidArgument, "{} should be an object, found {}", part_label,
                  parts[i].type_name());
    SLUICE_ASSIGN(const std::string type, required_text(parts[i], "type", part_label));
    if (type != "text")
      return fail(ErrorCode::kUnsupported, "{} is no text: models are given nothing else here",
                  part_label);
    const OrderedJson* value = json_find(parts[i], "text");
    if (value == nullptr || !value->is_string())
      return wrong(part_label, "text", "a string", value);
    text += value->get<std::string>();
  }
  return text;
}

Result<std::string> parse_content(const OrderedJson& message, bool may_lack,
                                  std::string_view label) {
  const OrderedJson* content = json_find(message, "content");
  if (content == nullptr && may_lack) return std::string();
  if (content != nullptr && content->is_string()) return content->get<std::string>();
  if (content != nullptr && content->is_array()) return parse_parts(*content, label);
  return wrong(label, "content", "a string or a list of parts", content);
}

// Clients of other makes send the object itself in place of its text.
Result<std::string> parse_arguments(const OrderedJson& function, std::string_view label) {
  const OrderedJson* arguments = json_find(function, "arguments");
  if (arguments == nullptr) return std::string("{}");
  if (arguments->is_object()) return dump_json(*arguments);
  if (!arguments->is_string()) return wrong(label, "arguments", "the text of an object", arguments);
  return arguments->get<std::string>();
}

Result<std::vector<MessageCall>> parse_calls(const OrderedJson& message, std::string_view label) {
  std::vector<MessageCall> calls;
  const OrderedJson* list = json_find(message, "tool_calls");
  if (list == nullptr) return calls;
  if (!list->is_array()) return wrong(label, "tool_calls", "a list", list);
  if (list->size() > kToolCallsMax)
    return fail(ErrorCode::kInvalidArgument, "{}.tool_calls has {} entries, at most {} are taken",
                label, list->size(), kToolCallsMax);
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string call_label = fmt::format("{}.tool_calls[{}]", label, i);
    const OrderedJson* function = json_find((*list)[i], "function");
    if (function == nullptr || !function->is_object())
      return wrong(call_label, "function", "an object", function);
    MessageCall& call = calls.emplace_back();
    SLUICE_ASSIGN(call.id, optional_text((*list)[i], "id", call_label));
    SLUICE_ASSIGN(call.name, required_text(*function, "name", call_label + ".function"));
    SLUICE_ASSIGN(call.arguments, parse_arguments(*function, call_label + ".function"));
  }
  return calls;
}

std::string json_text(std::string_view text) { return dump_json(Json(text)); }

// Templates go through arguments as an object; what the model botched is shown as it is.
std::string template_arguments(const std::string& arguments) {
  const auto parsed = parse_json(arguments, "arguments");
  return parsed && parsed->is_object() ? arguments : json_text(arguments);
}

std::string template_call(const MessageCall& call) {
  const std::string id = call.id.empty() ? "" : fmt::format(R"("id":{},)", json_text(call.id));
  return fmt::format(R"({{{}"type":"function","function":{{"name":{},"arguments":{}}}}})", id,
                     json_text(call.name), template_arguments(call.arguments));
}

std::string template_message(const Message& message) {
  const Role role = message.role == Role::kDeveloper ? Role::kSystem : message.role;
  std::string text =
      fmt::format(R"({{"role":"{}","content":{})", role_name(role), json_text(message.content));
  const auto add = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) text += fmt::format(R"(,"{}":{})", key, json_text(value));
  };
  add("name", message.name);
  add("tool_call_id", message.tool_call_id);
  add("reasoning_content", message.reasoning);
  // gpt-oss has a word of its own for it, and refuses both where there are calls.
  if (!message.tool_calls.empty() && message.content.empty()) add("thinking", message.reasoning);
  if (message.tool_calls.empty()) return text + "}";
  text += R"(,"tool_calls":[)";
  for (size_t i = 0; i < message.tool_calls.size(); ++i)
    text += (i > 0 ? "," : "") + template_call(message.tool_calls[i]);
  return text + "]}";
}

}  // namespace

std::string_view role_name(Role role) { return kRoles[static_cast<size_t>(role)]; }

Result<Message> parse_message(const OrderedJson& json, std::string_view label) {
  if (!json.is_object())
    return fail(ErrorCode::kInvalidArgument, "{} should be an object, found {}", label,
                json.type_name());
  Message message;
  SLUICE_ASSIGN(message.role, parse_role(json, label));
  if (message.role == Role::kAssistant) {
    SLUICE_ASSIGN(message.tool_calls, parse_calls(json, label));
    SLUICE_ASSIGN(message.reasoning, optional_text(json, "reasoning_content", label));
    if (message.reasoning.empty()) {
      SLUICE_ASSIGN(message.reasoning, optional_text(json, "reasoning", label));
    }
  }
  SLUICE_ASSIGN(message.content, parse_content(json, !message.tool_calls.empty(), label));
  if (message.role == Role::kTool) {
    SLUICE_ASSIGN(message.tool_call_id, optional_text(json, "tool_call_id", label));
  }
  SLUICE_ASSIGN(message.name, optional_text(json, "name", label));
  return message;
}

Result<std::vector<Message>> parse_messages(const OrderedJson& list, std::string_view label) {
  if (!list.is_array())
    return fail(ErrorCode::kInvalidArgument, "{} should be a list, found {}", label,
                list.type_name());
  if (list.size() > kMessagesMax)
    return fail(ErrorCode::kInvalidArgument, "{} has {} entries, at most {} are taken", label,
                list.size(), kMessagesMax);
  std::vector<Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    SLUICE_ASSIGN(messages.emplace_back(), parse_message(list[i], fmt::format("{}[{}]", label, i)));
  }
  return messages;
}

Json message_json(const Message& message) {
  Json json = {{"role", role_name(message.role)}, {"content", message.content}};
  if (!message.reasoning.empty()) json["reasoning_content"] = message.reasoning;
  if (!message.tool_call_id.empty()) json["tool_call_id"] = message.tool_call_id;
  if (!message.name.empty()) json["name"] = message.name;
  for (const MessageCall& call : message.tool_calls)
    json["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  return json;
}

Json messages_json(std::span<const Message> messages) {
  Json list = Json::array();
  for (const Message& message : messages) list.push_back(message_json(message));
  return list;
}

std::string template_messages(std::span<const Message> messages) {
  std::string text = "[";
  for (const Message& message : messages) {
    if (text.size() > 1) text += ',';
    text += template_message(message);
  }
  return text + "]";
}

Result<std::vector<uint32_t>> render_conversation(const ChatModel& model,
                                                  std::span<const Message> messages,
                                                  tokenizer::ChatInput input, std::string* text) {
  input.messages = template_messages(messages);
  return render_prompt(model, input, text);
}

}  // namespace sluice::chat
