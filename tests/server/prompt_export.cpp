// For tool_order_test.py: the prompt of a request, as the server lays it out.
//   prompt_export TEMPLATE_FILE    reads the body of a chat request from standard input
#include <fstream>
#include <iostream>
#include <iterator>

#include "chat/conversation.h"
#include "server/requests.h"
#include "tokenizer/chat_template.h"

namespace sluice::server {
namespace {

std::string all_of(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

Result<std::string> prompt(const std::string& template_text) {
  RequestDefaults defaults;
  defaults.vocabulary = 100;
  SLUICE_ASSIGN(const OrderedJson body, parse_ordered_json(all_of(std::cin), "the body"));
  SLUICE_ASSIGN(const ChatRequest request, parse_chat_request(body, defaults));
  SLUICE_ASSIGN(const auto chat_template,
                tokenizer::ChatTemplate::open({.chat_template = template_text}));
  tokenizer::ChatInput input;
  input.messages = chat::template_messages(request.messages);
  input.tools = dump_json(request.tools);
  input.variables = request.variables;
  return chat_template.render(input);
}

}  // namespace
}  // namespace sluice::server

int main(int, char** arguments) {
  std::ifstream file(arguments[1]);
  const auto text = sluice::server::prompt(sluice::server::all_of(file));
  if (!text) {
    std::cerr << text.error().message << "\n";
    return 1;
  }
  std::cout << *text;
  return 0;
}
