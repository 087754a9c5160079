#include "chat/json_text.h"

#include "base/json.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

size_t string_end(std::string_view text, size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\')
      ++at;
    else if (text[at] == '"')
      return at + 1;
  }
  return std::string_view::npos;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

size_t json_value_end(std::string_view text) {
  size_t at = text.find_first_not_of(kBlank), depth = 0;
  if (at == std::string_view::npos) return at;
  if (text[at] != '{' && text[at] != '[' && text[at] != '"') {
    at = text.find_first_of(",]} \t\r\n;", at);
    return at;
  }
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = string_end(text, at);
      if (at == std::string_view::npos) return at;
    } else {
      depth += c == '{' || c == '[' ? 1 : 0;
      depth -= (c == '}' || c == ']') && depth > 0 ? 1 : 0;
      ++at;
    }
    if (depth == 0) return at;
  }
  return std::string_view::npos;
}

std::optional<std::string_view> json_member(std::string_view object, std::string_view key) {
  object = trimmed(object);
  if (!object.starts_with('{')) return std::nullopt;
  for (size_t at = 1; at < object.size();) {
    at = object.find('"', at);
    if (at == std::string_view::npos) return std::nullopt;
    const size_t end = string_end(object, at);
    if (end == std::string_view::npos) return std::nullopt;
    const auto name = parse_json(object.substr(at, end - at), "a key");
    const size_t colon = object.find(':', end);
    if (!name || colon == std::string_view::npos) return std::nullopt;
    const std::string_view rest = object.substr(colon + 1);
    const size_t length = json_value_end(rest);
    if (length == std::string_view::npos) return std::nullopt;
    if (name->is_string() && name->get<std::string>() == key)
      return trimmed(rest.substr(0, length));
    at = colon + 1 + length;
  }
  return std::nullopt;
}

}  // namespace sluice::chat
