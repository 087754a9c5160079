// The messages of a chat as values: checked when they come from outside in the form of OpenAI's
// API, written in the same form, and laid out for a model's chat template. Who says what when is
// the caller's business.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ordered_json.h"
#include "chat/chat_model.h"

namespace sluice::chat {

// kDeveloper is OpenAI's later word for the system's; templates are shown it as kSystem.
enum class Role : uint8_t { kSystem, kDeveloper, kUser, kAssistant, kTool };
std::string_view role_name(Role role);  // "system", "developer", "user", "assistant", "tool"

// A tool that an assistant's message calls.
struct MessageCall {
  std::string id;         // may be empty: not every model numbers its calls
  std::string name;       // never empty
  std::string arguments;  // as the model wrote them: the text of a JSON object, if it kept to that
  bool operator==(const MessageCall&) const = default;
};

struct Message {
  Role role = Role::kUser;
  std::string content = {};
  std::string reasoning = {};                // an assistant's thoughts, marks not included
  std::vector<MessageCall> tool_calls = {};  // an assistant's
  std::string tool_call_id = {};             // of a tool's result: which call it answers
  std::string name = {};                     // of the speaker, or of the tool that was called
  bool operator==(const Message&) const = default;
};

inline constexpr size_t kMessagesMax = 100'000;
inline constexpr size_t kToolCallsMax = 1'000;  // of one message

// A list of messages in OpenAI's form. content: a text, null where calls stand in its place, or a
// list of parts of text. reasoning_content (or reasoning) are an assistant's thoughts. Keys that
// mean nothing here are passed over, as clients send back what they were sent. label names the list
// in errors: "messages[2].content should be …". Errors: kInvalidArgument; kUnsupported for parts
// that are no text.
Result<std::vector<Message>> parse_messages(const OrderedJson& list, std::string_view label);
Result<Message> parse_message(const OrderedJson& message, std::string_view label);

// The same form; what is empty is left out, but for content.
Json message_json(const Message& message);
Json messages_json(std::span<const Message> messages);

// The text for tokenizer::ChatInput::messages. Arguments stay in the order in which the model wrote
// them, since templates print them; thoughts are there for those templates that show the latest of
// them again, and which of them to leave out is theirs to say.
std::string template_messages(std::span<const Message> messages);

// As a prompt's tokens, ready for generation, and its text. input: all but the messages. Errors:
// render_prompt's.
Result<std::vector<uint32_t>> render_conversation(const ChatModel& model,
                                                  std::span<const Message> messages,
                                                  tokenizer::ChatInput input, std::string* text);

}  // namespace sluice::chat
