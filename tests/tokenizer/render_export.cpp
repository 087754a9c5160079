// Renders templates given as JSON lines on standard input, for the comparison with Jinja:
// {"template": …, "variables": {name: text of JSON}} becomes {"text": …} or {"error": …}.
#include <cstdio>
#include <iostream>
#include <string>

#include "base/json.h"
#include "tokenizer/chat_template.h"

namespace sluice::tokenizer {
namespace {

Json rendered(const Json& wanted) {
  const std::string source = wanted.at("template").get<std::string>();
  const auto opened = ChatTemplate::open({.chat_template = source});
  if (!opened) return {{"error", opened.error().message}};
  ChatInput input;
  input.messages = "[]";
  for (const auto& [name, value] : wanted.at("variables").items())
    input.variables[name] = value.get<std::string>();
  const auto text = opened->render(input);
  if (!text) return {{"error", text.error().message}};
  return {{"text", *text}};
}

}  // namespace
}  // namespace sluice::tokenizer

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto wanted = sluice::parse_json(line, "standard input");
    if (!wanted) return 1;
    std::puts(sluice::dump_json(sluice::tokenizer::rendered(*wanted)).c_str());
  }
  return 0;
}
