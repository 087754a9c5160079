#include "server/responses.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace sluice::server {
namespace {

std::unexpected<Error> wrong(std::string_view key, std::string_view wanted) {
  return fail(ErrorCode::kInvalidArgument, "{} should be {}", key, wanted);
}

// What the Responses API calls differently from what chats do.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kRenamed = {{
    {"max_output_tokens", "max_completion_tokens"},
    {"text", "response_format"},
    {"reasoning", "reasoning_effort"},
}};

// An error of a chat's field is one of the field that it was made of.
Error in_own_words(Error error) {
  for (const auto& [own, chats] : kRenamed)
    if (error.message.starts_with(chats)) error.message.replace(0, chats.size(), own);
  return error;
}

Status refuse_unoffered(const OrderedJson& body) {
  for (const std::string_view key : {"background", "conversation", "prompt", "n", "messages"})
    if (const OrderedJson* given = json_find(body, key);
        given != nullptr && *given != false && *given != 1)
      return fail(ErrorCode::kUnsupported, "{} is not offered by this server", key);
  const OrderedJson* truncation = json_find(body, "truncation");
  if (truncation != nullptr && *truncation != "disabled")
    return fail(ErrorCode::kUnsupported,
                "truncation: what is too long is refused here, and nothing left out of it");
  return {};
}

// {"type": "function", "name": …} is {"type": "function", "function": {"name": …}}.
Result<OrderedJson> chat_tools(const OrderedJson& tools) {
  if (!tools.is_array()) return wrong("tools", "a list");
  OrderedJson list = OrderedJson::array();
  for (const OrderedJson& tool : tools) {
    const OrderedJson* type = json_find(tool, "type");
    if (type == nullptr || !type->is_string()) return wrong("tools", "a list of typed tools");
    if (*type != "function")
      return fail(ErrorCode::kUnsupported, "tools: those of type {} are not offered by this server",
                  dump_json(*type));
    OrderedJson function = tool;
    function.erase("type");
    function.erase("strict");
    list.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return list;
}

Result<OrderedJson> chat_tool_choice(const OrderedJson& choice) {
  if (!choice.is_object()) return choice;
  const OrderedJson* type = json_find(choice, "type");
  const OrderedJson* name = json_find(choice, "name");
  if (type == nullptr || *type != "function" || name == nullptr)
    return fail(ErrorCode::kUnsupported,
                "tool_choice: auto, none, required or one function is offered, nothing else");
  return OrderedJson{{"type", "function"}, {"function", {{"name", *name}}}};
}

Result<OrderedJson> chat_format(const OrderedJson& text) {
  const OrderedJson* format = json_find(text, "format");
  if (format == nullptr) return OrderedJson();
  const OrderedJson* type = json_find(*format, "type");
  if (type == nullptr || *type != "json_schema") return *format;
  OrderedJson inner = *format;
  inner.erase("type");
  return OrderedJson{{"type", "json_schema"}, {"json_schema", std::move(inner)}};
}

// include: thoughts come as they are, so that there is nothing to encrypt.
Status read_include(const OrderedJson& body, OrderedJson& chat) {
  const OrderedJson* include = json_find(body, "include");
  const OrderedJson* likeliest = json_find(body, "top_logprobs");
  bool logprobs = likeliest != nullptr && *likeliest != 0;
  if (include != nullptr && !include->is_array()) return wrong("include", "a list");
  for (const OrderedJson& what : include == nullptr ? OrderedJson::array() : *include) {
    if (what == "message.output_text.logprobs")
      logprobs = true;
    else if (what != "reasoning.encrypted_content")
      return fail(ErrorCode::kUnsupported, "include: {} is not offered by this server",
                  dump_json(what));
  }
  if (logprobs) chat["logprobs"] = true;
  return {};
}

// Fields that chats have under the same name stay as they are.
Result<OrderedJson> chat_body(const OrderedJson& body) {
  OrderedJson chat = body;
  for (const std::string_view key :
       {"input", "instructions", "previous_response_id", "include", "text", "reasoning", "tools",
        "tool_choice", "max_output_tokens", "n", "stream_options", "store", "metadata"})
    chat.erase(std::string(key));
  if (const OrderedJson* tokens = json_find(body, "max_output_tokens"))
    chat["max_completion_tokens"] = *tokens;
  if (const OrderedJson* tools = json_find(body, "tools")) {
    SLUICE_ASSIGN(chat["tools"], chat_tools(*tools));
  }
  if (const OrderedJson* choice = json_find(body, "tool_choice")) {
    SLUICE_ASSIGN(chat["tool_choice"], chat_tool_choice(*choice));
  }
  if (const OrderedJson* text = json_find(body, "text")) {
    SLUICE_ASSIGN(chat["response_format"], chat_format(*text));
  }
  if (const OrderedJson* reasoning = json_find(body, "reasoning")) {
    if (!reasoning->is_object()) return wrong("reasoning", "an object");
    if (const OrderedJson* effort = json_find(*reasoning, "effort"))
      chat["reasoning_effort"] = *effort;
  }
  SLUICE_TRY(read_include(body, chat));
  return chat;
}

// Parts of text, whosever they are.
Result<std::string> parts_text(const OrderedJson& content, const std::string& label) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return wrong(label, "a text or a list of parts");
  std::string text;
  for (const OrderedJson& part : content) {
    const OrderedJson* type = json_find(part, "type");
    const OrderedJson* piece = json_find(part, "text");
    const bool known =
        type != nullptr && (*type == "input_text" || *type == "output_text" || *type == "text" ||
                            *type == "reasoning_text" || *type == "summary_text");
    if (!known)
      return fail(ErrorCode::kUnsupported, "{}: a part is no text: models are given nothing else",
                  label);
    if (piece == nullptr || !piece->is_string()) return wrong(label, "parts with a text");
    text += piece->get<std::string>();
  }
  return text;
}

Result<std::string> parts_text(const OrderedJson& item, std::string_view key,
                               const std::string& label) {
  const OrderedJson* content = json_find(item, key);
  if (content == nullptr) return std::string();
  return parts_text(*content, fmt::format("{}.{}", label, key));
}

// An item in the words of chats.
Result<OrderedJson> chat_message(const OrderedJson& item, const std::string& label) {
  if (!item.is_object()) return wrong(label, "an object");
  const OrderedJson* type = json_find(item, "type");
  const std::string kind = type != nullptr && type->is_string() ? type->get<std::string>()
                           : type == nullptr                    ? "message"
                                                                : "";
  const auto field = [&](std::string_view key) {
    const OrderedJson* found = json_find(item, key);
    return found == nullptr ? OrderedJson() : *found;
  };
  if (kind == "message") {
    SLUICE_ASSIGN(const std::string content, parts_text(item, "content", label));
    return OrderedJson{{"role", field("role")}, {"content", content}};
  }
  if (kind == "reasoning") {
    SLUICE_ASSIGN(std::string text, parts_text(item, "content", label));
    if (text.empty()) {
      SLUICE_ASSIGN(text, parts_text(item, "summary", label));
    }
    return OrderedJson{{"role", "assistant"}, {"content", ""}, {"reasoning_content", text}};
  }
  if (kind == "function_call")
    return OrderedJson{
        {"role", "assistant"},
        {"content", nullptr},
        {"tool_calls",
         OrderedJson::array(
             {{{"id", field("call_id")},
               {"type", "function"},
               {"function", {{"name", field("name")}, {"arguments", field("arguments")}}}}})}};
  if (kind == "function_call_output") {
    SLUICE_ASSIGN(const std::string output, parts_text(item, "output", label));
    return OrderedJson{{"role", "tool"}, {"tool_call_id", field("call_id")}, {"content", output}};
  }
  return fail(ErrorCode::kUnsupported, "{}: items of type {} are not offered by this server", label,
              dump_json(type == nullptr ? OrderedJson() : *type));
}

// An assistant's thoughts, words and calls are items of their own, and one message.
void append(std::vector<chat::Message>& messages, chat::Message message) {
  const bool goes_on = !messages.empty() && messages.back().role == chat::Role::kAssistant &&
                       message.role == chat::Role::kAssistant;
  if (!goes_on) return messages.push_back(std::move(message));
  chat::Message& last = messages.back();
  last.content += message.content;
  last.reasoning += message.reasoning;
  std::ranges::move(message.tool_calls, std::back_inserter(last.tool_calls));
}

Status read_input(const OrderedJson& body, std::vector<chat::Message>& messages) {
  const OrderedJson* input = json_find(body, "input");
  if (input != nullptr && input->is_string()) {
    messages.push_back({.role = chat::Role::kUser, .content = input->get<std::string>()});
    return {};
  }
  if (input == nullptr || !input->is_array() || input->empty())
    return wrong("input", "a text, or a list of at least one item");
  if (input->size() > chat::kMessagesMax)
    return fail(ErrorCode::kInvalidArgument, "input has at most {} items, found {}",
                chat::kMessagesMax, input->size());
  for (size_t i = 0; i < input->size(); ++i) {
    const std::string label = fmt::format("input[{}]", i);
    SLUICE_ASSIGN(const OrderedJson json, chat_message((*input)[i], label));
    SLUICE_ASSIGN(chat::Message message, chat::parse_message(json, label));
    append(messages, std::move(message));
  }
  return {};
}

// Repeated as they were given, or as what they stand for when they were not.
OrderedJson echo_of(const OrderedJson& body) {
  OrderedJson echo = {{"instructions", nullptr},
                      {"max_output_tokens", nullptr},
                      {"metadata", OrderedJson::object()},
                      {"parallel_tool_calls", true},
                      {"previous_response_id", nullptr},
                      {"reasoning", OrderedJson::object()},
                      {"temperature", nullptr},
                      {"text", {{"format", {{"type", "text"}}}}},
                      {"tool_choice", "auto"},
                      {"tools", OrderedJson::array()},
                      {"top_p", nullptr},
                      {"truncation", "disabled"},
                      {"user", nullptr}};
  for (const auto& [key, value] : echo.items())
    if (const OrderedJson* given = json_find(body, key)) value = *given;
  return echo;
}

}  // namespace

Result<std::string> previous_response(const Json& body) {
  const Json* given = json_find(body, "previous_response_id");
  if (given == nullptr) return std::string();
  if (!given->is_string()) return wrong("previous_response_id", "a string");
  return given->get<std::string>();
}

Result<ResponsesRequest> parse_responses_request(const OrderedJson& body,
                                                 const RequestDefaults& defaults,
                                                 std::vector<chat::Message> before) {
  if (!body.is_object()) return wrong("the body", "a JSON object");
  SLUICE_TRY(refuse_unoffered(body));
  ResponsesRequest request;
  request.lasting = std::move(before);
  SLUICE_TRY(read_input(body, request.lasting));
  SLUICE_ASSIGN(const OrderedJson chat, chat_body(body));
  auto parsed = parse_chat_settings(chat, defaults);
  if (!parsed) return std::unexpected(in_own_words(parsed.error()));
  request.chat = std::move(*parsed);
  if (const OrderedJson* instructions = json_find(body, "instructions")) {
    if (!instructions->is_string()) return wrong("instructions", "a string");
    request.chat.messages.push_back(
        {.role = chat::Role::kSystem, .content = instructions->get<std::string>()});
  }
  request.chat.messages.insert(request.chat.messages.end(), request.lasting.begin(),
                               request.lasting.end());
  if (const OrderedJson* store = json_find(body, "store")) {
    if (!store->is_boolean()) return wrong("store", "true or false");
    request.store = store->get<bool>();
  }
  if (const OrderedJson* metadata = json_find(body, "metadata"); metadata && !metadata->is_object())
    return wrong("metadata", "an object");
  request.echo = echo_of(body);
  return request;
}

}  // namespace sluice::server
