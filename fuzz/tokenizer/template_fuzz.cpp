// Chat templates with a conversation to render: the input's first line is JSON messages, the rest
// the template. What is rendered is UTF-8, what is refused says why. Memory is bounded by the crate
// itself, in total and not by the input's size, so fuzz::AllocationBound is not for it.
#include <string_view>

#include "base/json.h"
#include "tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 0;
  const auto opened = tokenizer::ChatTemplate::open({.chat_template = text.substr(line + 1)});
  if (!opened) {
    SLUICE_CHECK(!opened.error().message.empty());
    return 0;
  }
  tokenizer::ChatInput input;
  input.messages = text.substr(0, line);
  input.tools = input.messages;
  input.now.emplace();
  const auto rendered = opened->render(input);
  // dump_json replaces what is no UTF-8, and a second look would then differ.
  if (rendered) SLUICE_CHECK(parse_json(dump_json(Json(*rendered)), "fuzz").value() == *rendered);
  return 0;
}
