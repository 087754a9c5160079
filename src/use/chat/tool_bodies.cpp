#include "chat/tool_bodies.h"

#include "chat/json_text.h"
#include "chat/tool_marks.h"

namespace sluice::chat {
namespace {

using Calls = std::vector<WrittenCall>;

// Takes text up to the mark away, mark included; none where there is no mark.
std::optional<std::string_view> take_until(std::string_view& text, std::string_view mark) {
  const size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + mark.size());
  return before;
}

bool add(Calls& calls, std::string_view id, std::string_view name, std::string_view arguments) {
  const auto object = object_text(arguments);
  name = trimmed(name);
  if (!object || name.empty()) return false;
  calls.push_back({std::string(id), std::string(name), *object});
  return true;
}

// {"name": …, "arguments" or "parameters": …}
bool add_object(Calls& calls, std::string_view text) {
  const auto object = parse_json(text, "a call");
  if (!object || !object->is_object()) return false;
  const Json* name = json_find(*object, "name");
  if (name == nullptr || !name->is_string()) return false;
  const char* key = object->contains("arguments") ? "arguments" : "parameters";
  const Json* arguments = json_find(*object, key);
  const Json* id = json_find(*object, "id");
  const std::string number = id != nullptr && id->is_string() ? id->get<std::string>() : "";
  if (arguments == nullptr) return add(calls, number, name->get<std::string>(), "");
  // Some write the arguments' JSON as a string.
  if (arguments->is_string())
    return add(calls, number, name->get<std::string>(), arguments->get<std::string>());
  return add(calls, number, name->get<std::string>(), json_member(text, key).value_or("?"));
}

// One object, several behind each other (perhaps with ; or , between), or a list of them.
std::optional<Calls> read_objects(std::string_view text) {
  Calls calls;
  text = trimmed(text);
  if (text.starts_with('[')) {
    if (json_value_end(text) != text.size()) return std::nullopt;
    text = trimmed(text.substr(1, text.size() - 2));
  }
  while (!text.empty()) {
    const size_t end = json_value_end(text);
    if (end == std::string_view::npos || !add_object(calls, text.substr(0, end)))
      return std::nullopt;
    text = trimmed(text.substr(end));
    if (text.starts_with(';') || text.starts_with(',')) text = trimmed(text.substr(1));
  }
  return calls;
}

// The schema's "type" of a parameter; empty where nothing says it.
std::string parameter_type(const OrderedJson& tools, std::string_view tool,
                           std::string_view parameter) {
  for (const OrderedJson& each : tools) {
    const OrderedJson* function = each.is_object() ? json_find(each, "function") : nullptr;
    if (function == nullptr || !function->is_object()) continue;
    const OrderedJson* name = json_find(*function, "name");
    if (name == nullptr || *name != OrderedJson(tool)) continue;
    const OrderedJson* at = function;
    for (const std::string_view key :
         {std::string_view("parameters"), std::string_view("properties"), parameter,
          std::string_view("type")}) {
      at = at->is_object() ? json_find(*at, key) : nullptr;
      if (at == nullptr) return "";
    }
    return at->is_string() ? at->get<std::string>() : "";
  }
  return "";
}

// A value that stands between tags: itself for a string, else JSON, and a string after all where it
// is none.
std::string value_text(std::string_view value, const std::string& type) {
  const auto json = parse_json(value, "a value");
  if (type != "string" && json) return std::string(trimmed(value));
  return dump_json(Json(value));
}

class Arguments {
 public:
  void add(std::string_view key, std::string_view value) {
    text_ += (text_.empty() ? "" : ", ") + dump_json(Json(key)) + ": " + std::string(value);
  }
  std::string object() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

// A line break behind the opening tag and one before the closing tag are the form's.
std::string_view without_breaks(std::string_view value) {
  if (value.starts_with('\n')) value.remove_prefix(1);
  if (value.ends_with('\n')) value.remove_suffix(1);
  return value;
}

std::optional<Calls> read_xml(std::string_view body, const OrderedJson& tools) {
  Calls calls;
  while (take_until(body, "<function=")) {
    const auto name = take_until(body, ">");
    if (!name) return std::nullopt;
    std::string_view inside = body.substr(0, body.find("</function>"));
    body.remove_prefix(inside.size());
    Arguments arguments;
    while (take_until(inside, "<parameter=")) {
      const auto key = take_until(inside, ">");
      const auto value = key ? take_until(inside, "</parameter>") : std::nullopt;
      if (!value) return std::nullopt;
      arguments.add(*key, value_text(without_breaks(*value), parameter_type(tools, *name, *key)));
    }
    if (!add(calls, "", *name, arguments.object())) return std::nullopt;
  }
  return calls;
}

std::optional<Calls> read_glm(std::string_view body, const OrderedJson& tools) {
  const std::string_view name = trimmed(body.substr(0, body.find("<arg_key>")));
  if (name.find('<') != std::string_view::npos) return std::nullopt;
  Arguments arguments;
  while (take_until(body, "<arg_key>")) {
    const auto key = take_until(body, "</arg_key>");
    const auto value =
        key && take_until(body, "<arg_value>") ? take_until(body, "</arg_value>") : std::nullopt;
    if (!value) return std::nullopt;
    const std::string_view known = trimmed(*key);
    arguments.add(known, value_text(*value, parameter_type(tools, name, known)));
  }
  Calls calls;
  if (!add(calls, "", name, arguments.object())) return std::nullopt;
  return calls;
}

std::optional<Calls> read_mistral(std::string_view body) {
  if (trimmed(body).starts_with('[') && !trimmed(body).starts_with(marks::kMistralArgs))
    return read_objects(body);
  Calls calls;
  while (!trimmed(body).empty()) {
    auto name = take_until(body, marks::kMistralArgs);
    if (!name) return std::nullopt;
    std::string_view head = *name, id;
    if (const auto before = take_until(head, marks::kMistralId)) {
      name = before;
      id = trimmed(head);
    }
    const size_t end = json_value_end(body);
    if (end == std::string_view::npos || !add(calls, id, *name, body.substr(0, end)))
      return std::nullopt;
    body = trimmed(body.substr(end));
    if (body.starts_with(marks::kMistral)) body.remove_prefix(marks::kMistral.size());
  }
  return calls;
}

std::optional<Calls> read_deepseek(std::string_view body) {
  Calls calls;
  while (take_until(body, marks::kDeepseekBegin)) {
    std::string_view inside = body.substr(0, body.find(marks::kDeepseekEnd));
    const auto head = take_until(inside, marks::kDeepseekSeparator);
    if (!head) return std::nullopt;
    std::string_view name = *head, arguments = inside;
    if (const size_t fence = inside.find("```"); fence != std::string_view::npos) {
      name = inside.substr(0, fence);
      arguments = inside.substr(inside.find('\n', fence) + 1);
      arguments = arguments.substr(0, arguments.find("```"));
    }
    if (!add(calls, "", name, arguments)) return std::nullopt;
  }
  return calls;
}

// "functions.name:0" is the call's id as well.
std::optional<Calls> read_kimi(std::string_view body) {
  Calls calls;
  while (take_until(body, marks::kKimiBegin)) {
    std::string_view inside = body.substr(0, body.find(marks::kKimiEnd));
    const auto head = take_until(inside, marks::kKimiArguments);
    if (!head) return std::nullopt;
    const std::string_view id = trimmed(*head);
    if (!add(calls, id, kimi_name(id), inside)) return std::nullopt;
  }
  return calls;
}

std::optional<Calls> read(ToolFamily family, std::string_view body, const OrderedJson& tools) {
  switch (family) {
    case ToolFamily::kXml: return read_xml(body, tools);
    case ToolFamily::kGlm: return read_glm(body, tools);
    case ToolFamily::kMistralList:
    case ToolFamily::kMistralName: return read_mistral(body);
    case ToolFamily::kDeepseek:
    case ToolFamily::kDeepseekBare: return read_deepseek(body);
    case ToolFamily::kKimi: return read_kimi(body);
    default: return read_objects(body);
  }
}

}  // namespace

std::optional<std::string> object_text(std::string_view text) {
  text = trimmed(text);
  if (text.empty()) return "{}";
  const auto json = parse_json(text, "arguments");
  if (!json || !json->is_object()) return std::nullopt;
  return std::string(text);
}

std::string_view kimi_name(std::string_view id) {
  if (id.starts_with("functions.")) id.remove_prefix(10);
  return id.substr(0, id.rfind(':'));
}

std::optional<Calls> read_calls(ToolFamily family, std::string_view body,
                                const OrderedJson& tools) {
  auto calls = read(family, body, tools);
  if (!calls || calls->empty()) return std::nullopt;
  return calls;
}

}  // namespace sluice::chat
