// Messages in OpenAI's form: what is taken reads the same when it is written again, and what
// templates are given is JSON whatever a model wrote as arguments.
#include <string_view>

#include "chat/conversation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = parse_json(text, "fuzz");
  if (!json) return 0;
  const auto messages = chat::parse_messages(*json, "messages");
  if (!messages) {
    SLUICE_CHECK(messages.error().message.starts_with("messages"));
    return 0;
  }
  const auto again = chat::parse_messages(chat::messages_json(*messages), "messages");
  SLUICE_CHECK(again && *again == *messages);
  const auto shown = parse_json(chat::template_messages(*messages), "template");
  SLUICE_CHECK(shown && shown->size() == messages->size());
  return 0;
}
