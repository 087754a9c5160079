// Answers with tool calls: the first byte is the family, the second how they are cut, the rest the
// text. However it is cut, content, thoughts and calls are the same, arguments are JSON objects and
// what was told of them piece by piece, and every call that begins ends or is lost.
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "chat/tool_calls.h"

namespace {

using namespace sluice;
using Kind = chat::AnswerPart::Kind;

std::string told(chat::ToolFamily family, std::string_view text, size_t piece) {
  const Json tools = {{{"function", {{"name", "now"}}}}};
  chat::ToolCallParser parser(chat::ToolSyntax(family), "", tools);
  std::string content, thoughts, calls, arguments;
  size_t lost = 0;
  const auto take = [&](const std::vector<chat::AnswerPart>& parts) {
    for (const chat::AnswerPart& part : parts) {
      if (part.kind == Kind::kContent) content += part.text;
      if (part.kind == Kind::kReasoning) thoughts += part.text;
      if (part.kind == Kind::kCall) {
        calls += part.id + " " + part.name + " ";
        arguments.clear();
      }
      if (part.kind == Kind::kArguments) arguments += part.text;
      if (part.kind == Kind::kCallLost) {
        ++lost;
        calls += "lost: " + part.text + " " + arguments;
      }
      if (part.kind != Kind::kCallEnd) continue;
      SLUICE_CHECK(part.text == arguments);
      SLUICE_CHECK(parse_json(part.text, "arguments").value().is_object());
      calls += part.text;
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) take(parser.feed(text.substr(at, piece)));
  take(parser.finish());
  SLUICE_CHECK(parser.calls() == parser.complete_calls() + lost);
  return content + "\n" + thoughts + "\n" + calls;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto family = static_cast<chat::ToolFamily>(data[0] % 11);
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::string whole = told(family, text, std::max<size_t>(text.size(), 1));
  SLUICE_CHECK(told(family, text, 1 + data[1] % 16) == whole);
  return 0;
}
