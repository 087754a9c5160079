#include "chat/tool_heads.h"

#include <algorithm>

#include "base/json.h"
#include "chat/json_text.h"
#include "chat/tool_bodies.h"
#include "chat/tool_marks.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kBlank = " \t\r\n";
// Around the objects of a list, or of several one behind the other; between an object's members.
constexpr std::string_view kBetween = " \t\r\n[,;", kBetweenMembers = " \t\r\n,";
constexpr size_t kNowhere = std::string_view::npos;

// The arguments are to begin at or behind `at`, and to be an object.
HeadFound arguments_at(std::string_view text, size_t at, CallHead& head) {
  head.end = text.find_first_not_of(kBlank, at);
  if (head.end == kNowhere) return HeadFound::kMore;
  return text[head.end] == '{' && !head.name.empty() ? HeadFound::kYes : HeadFound::kNo;
}

// Reads a member of an object behind its key. kMore: it has moved `at` to the end of the value, or
// there is not all of it.
HeadFound read_member(std::string_view text, const std::string& key, size_t& at, CallHead& head) {
  if (key == "arguments" || key == "parameters") return arguments_at(text, at, head);
  const size_t length = json_value_end(text.substr(at));
  if (length == kNowhere) return HeadFound::kMore;
  const auto value = parse_json(text.substr(at, length), "a value");
  if (!value) return HeadFound::kNo;
  if (key == "name" && value->is_string()) head.name = value->get<std::string>();
  if (key == "id" && value->is_string()) head.id = value->get<std::string>();
  at += length;
  return HeadFound::kMore;
}

// {"name": …, "arguments" or "parameters": {…
HeadFound object_head(std::string_view text, CallHead& head) {
  size_t at = text.find_first_not_of(kBetween);
  if (at == kNowhere) return HeadFound::kMore;
  if (text[at] != '{') return HeadFound::kNo;
  head.in_object = true;
  for (++at;;) {
    at = text.find_first_not_of(kBetweenMembers, at);
    if (at == kNowhere) return HeadFound::kMore;
    if (text[at] != '"') return HeadFound::kNo;
    const size_t length = json_value_end(text.substr(at));
    if (length == kNowhere) return HeadFound::kMore;
    const auto key = parse_json(text.substr(at, length), "a key");
    at = text.find_first_not_of(kBlank, at + length);
    if (at == kNowhere) return HeadFound::kMore;
    if (!key || text[at] != ':') return HeadFound::kNo;
    const size_t value = ++at;
    const HeadFound found = read_member(text, key->get<std::string>(), at, head);
    if (found != HeadFound::kMore || at == value) return found;
  }
}

bool may_become(std::string_view text, std::string_view mark) {
  return text.size() < mark.size() && mark.starts_with(text);
}

HeadFound mistral_head(std::string_view text, CallHead& head) {
  size_t at = std::min(text.find_first_not_of(kBlank), text.size());
  std::string_view rest = text.substr(at);
  if (rest.starts_with(marks::kMistral)) at += marks::kMistral.size();
  rest = text.substr(at);
  if (may_become(rest, marks::kMistral) || may_become(rest, marks::kMistralArgs))
    return HeadFound::kMore;
  if (kBetween.find(rest[0]) != kNowhere && !rest.starts_with(marks::kMistralArgs)) {
    const HeadFound found = object_head(rest, head);
    head.end += at;
    return found;
  }
  const size_t arguments = rest.find(marks::kMistralArgs);
  if (arguments == kNowhere) return HeadFound::kMore;
  std::string_view name = rest.substr(0, arguments);
  if (const size_t id = name.find(marks::kMistralId); id != kNowhere) {
    head.id = trimmed(name.substr(id + marks::kMistralId.size()));
    name = name.substr(0, id);
  }
  head.name = trimmed(name);
  return arguments_at(text, at + arguments + marks::kMistralArgs.size(), head);
}

// What lies between a mark that begins a call and the one behind its name. at: behind that.
HeadFound marked_head(std::string_view text, std::string_view begin, std::string_view separator,
                      std::string_view end, std::string_view& name, size_t& at) {
  const size_t start = text.find(begin);
  if (start == kNowhere) return HeadFound::kMore;
  const size_t behind = text.find(separator, start);
  const size_t stop = text.find(end, start);
  if (stop < behind) return HeadFound::kNo;
  if (behind == kNowhere) return HeadFound::kMore;
  name = trimmed(text.substr(start + begin.size(), behind - start - begin.size()));
  at = behind + separator.size();
  return HeadFound::kYes;
}

// "function", the separator, and the name before a block of JSON; or the name and the separator.
HeadFound deepseek_head(std::string_view text, CallHead& head) {
  std::string_view name;
  size_t at = 0;
  const HeadFound found = marked_head(text, marks::kDeepseekBegin, marks::kDeepseekSeparator,
                                      marks::kDeepseekEnd, name, at);
  if (found != HeadFound::kYes) return found;
  head.name = name;
  const size_t first = text.find_first_not_of(kBlank, at);
  if (first == kNowhere) return HeadFound::kMore;
  if (text[first] == '{') return arguments_at(text, at, head);
  const size_t fence = text.find("```", at);
  const size_t line = fence == kNowhere ? fence : text.find('\n', fence);
  if (text.find(marks::kDeepseekEnd, at) < line) return HeadFound::kNo;
  if (line == kNowhere) return HeadFound::kMore;
  head.name = trimmed(text.substr(at, fence - at));
  return arguments_at(text, line, head);
}

// "functions.name:0" is the call's id as well.
HeadFound kimi_head(std::string_view text, CallHead& head) {
  std::string_view name;
  size_t at = 0;
  const HeadFound found =
      marked_head(text, marks::kKimiBegin, marks::kKimiArguments, marks::kKimiEnd, name, at);
  if (found != HeadFound::kYes) return found;
  head.id = name;
  head.name = kimi_name(name);
  return arguments_at(text, at, head);
}

}  // namespace

HeadFound find_head(ToolFamily family, std::string_view text, CallHead& head) {
  switch (family) {
    case ToolFamily::kXml:
    case ToolFamily::kGlm: return HeadFound::kNo;
    case ToolFamily::kMistralList:
    case ToolFamily::kMistralName: return mistral_head(text, head);
    case ToolFamily::kDeepseek:
    case ToolFamily::kDeepseekBare: return deepseek_head(text, head);
    case ToolFamily::kKimi: return kimi_head(text, head);
    default: return object_head(text, head);
  }
}

Channel read_header(std::string_view header) {
  constexpr std::string_view kTo = "to=functions.";
  Channel channel;
  channel.reasoning = header.find("analysis") != std::string_view::npos;
  const size_t to = header.find(kTo);
  if (to == std::string_view::npos) return channel;
  const std::string_view rest = header.substr(to + kTo.size());
  channel.function = rest.substr(0, rest.find_first_of(" <\n"));
  return channel;
}

std::string_view left_behind_call(ToolFamily family, std::string_view text) {
  const auto skip_past = [&](std::string_view mark) {
    const size_t at = text.find(mark);
    if (at != kNowhere) text.remove_prefix(at + mark.size());
  };
  if (family == ToolFamily::kDeepseek || family == ToolFamily::kDeepseekBare)
    skip_past(marks::kDeepseekEnd);
  if (family == ToolFamily::kKimi) skip_past(marks::kKimiEnd);
  if (text.find_first_not_of(" \t\r\n[]{},;`") == kNowhere) return {};
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n]},;`"), text.size()));
  if (text.starts_with(marks::kMistral)) text.remove_prefix(marks::kMistral.size());
  // A list's end.
  if (text.starts_with('{')) text = text.substr(0, text.rfind('}') + 1);
  return text;
}

}  // namespace sluice::chat
