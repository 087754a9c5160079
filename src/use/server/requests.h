// Bodies of OpenAI's API as values, every field checked: kind, range and size. What is asked for
// and not offered is refused by name (kUnsupported), never passed over in silence.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/ordered_json.h"
#include "chat/answer_form.h"
#include "chat/conversation.h"
#include "chat/tool_calls.h"
#include "server/scheduler.h"

namespace sluice::server {

struct RequestDefaults {
  runtime::SamplerOptions sampling;  // the model's own
  size_t tokens_max = 0;             // of an answer, the most that may be asked for; 0: the context
  size_t choices_max = 16;
  size_t vocabulary = 0;
};

// What all kinds of generation have in common. job: all but the prompt.
struct GenerationRequest {
  std::string model;
  Job job;
  size_t choices = 1;
  bool stream = false, include_usage = false;
  std::optional<chat::AnswerForm> form;  // of response_format
};

struct ChatRequest : GenerationRequest {
  std::vector<chat::Message> messages;
  std::map<std::string, std::string> variables;  // of the template, as JSON texts
  OrderedJson tools;                             // null: none, or none to be called
  chat::ToolChoice tool_choice;
};

using PromptText = std::variant<std::string, std::vector<uint32_t>>;
struct CompletionRequest : GenerationRequest {
  std::vector<PromptText> prompts;
  bool echo = false;
};

// The name that a body asks for; empty where it gives none.
Result<std::string> requested_model(const Json& body);

// Tools, schemas and arguments keep the order of their keys. Errors: kInvalidArgument,
// kUnsupported; the message begins with the field's name.
Result<ChatRequest> parse_chat_request(const OrderedJson& body, const RequestDefaults& defaults);
// All but the messages.
Result<ChatRequest> parse_chat_settings(const OrderedJson& body, const RequestDefaults& defaults);
Result<CompletionRequest> parse_completion_request(const OrderedJson& body,
                                                   const RequestDefaults& defaults);

// {"name": "…", "slot": 0}
struct SessionRequest {
  std::string name;
  std::optional<size_t> slot;
};
Result<SessionRequest> parse_session_request(const OrderedJson& body);

// {"content": "…", "add_special": false} and {"tokens": […]}.
struct TokenizeRequest {
  std::string content;
  bool add_special = false;
};
Result<TokenizeRequest> parse_tokenize_request(const OrderedJson& body);
Result<std::vector<uint32_t>> parse_detokenize_request(const OrderedJson& body, size_t vocabulary);

struct EmbeddingRequest {
  std::vector<PromptText> inputs;
  std::string client;   // "user"
  bool base64 = false;  // f32, little-endian; else numbers
};
// columns: of the model's states, the only dimensions it has. Errors: as parse_chat_request()'s.
Result<EmbeddingRequest> parse_embedding_request(const OrderedJson& body, size_t vocabulary,
                                                 size_t columns);

}  // namespace sluice::server
