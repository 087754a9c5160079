// Bodies of OpenAI's Responses API. What it asks for is what a chat asks for in other words, so a
// body is written as a chat's and read as that; items become messages.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/ordered_json.h"
#include "server/requests.h"

namespace sluice::server {

struct ResponsesRequest {
  ChatRequest chat;                    // messages: all that the model is shown
  std::vector<chat::Message> lasting;  // of them, what a later response continues: no instructions
  Json echo;                           // fields of the response that repeat the request
  bool store = true;
};

// previous_response_id; empty: none. kInvalidArgument.
Result<std::string> previous_response(const Json& body);

// before: the conversation that previous_response_id names. Errors: as parse_chat_request()'s, by
// the field's own name.
Result<ResponsesRequest> parse_responses_request(const OrderedJson& body,
                                                 const RequestDefaults& defaults,
                                                 std::vector<chat::Message> before);

}  // namespace sluice::server
