#include "chat/json_text.h"

#include "base/json.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

// at: of the opening quote.
size_t string_end(std::string_view text, size_t at) {
  const size_t length = json_value_end(text.substr(at));
  return length == std::string_view::npos ? length : at + length;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

size_t JsonExtent::take(std::string_view piece) {
  for (size_t at = 0; at < piece.size(); ++at) {
    const char c = piece[at];
    if (escaped_)
      escaped_ = false;
    else if (in_string_ && c == '\\')
      escaped_ = true;
    else if (c == '"')
      in_string_ = !in_string_;
    else if (!in_string_ && (c == '{' || c == '['))
      ++depth_;
    else if (!in_string_ && (c == '}' || c == ']') && depth_ > 0)
      --depth_;
    if (depth_ > 0 || in_string_) continue;
    done_ = true;
    return at + 1;
  }
  return piece.size();
}

size_t json_value_end(std::string_view text) {
  const size_t at = text.find_first_not_of(kBlank);
  if (at == std::string_view::npos) return at;
  if (text[at] != '{' && text[at] != '[' && text[at] != '"')
    return text.find_first_of(",]} \t\r\n;", at);
  JsonExtent extent;
  const size_t size = extent.take(text.substr(at));
  return extent.done() ? at + size : std::string_view::npos;
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
