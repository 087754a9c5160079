// A conversation as the text that a model was trained on: its chat template, rendered as
// `transformers` renders it. Which ids that text becomes is the Tokenizer's business.
#pragma once

#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/special_tokens.h"

struct SluiceTemplate;

namespace sluice::tokenizer {

struct NamedTemplate {
  std::string name;
  std::string source;
};

// Texts of a model's files; empty where there is no such file.
struct ChatTemplateFiles {
  std::string_view tokenizer_config = {};    // tokenizer_config.json: the template, special tokens
  std::string_view special_tokens_map = {};  // special_tokens_map.json
  std::string_view chat_template = {};       // chat_template.jinja; goes before the configuration's
  std::vector<NamedTemplate> additional = {};  // further ones, which replace those of the same name
};

struct ChatMessage {
  std::string role;
  std::string content;
};

// The messages of a plain conversation as JSON.
std::string messages_json(std::span<const ChatMessage> messages);

// Values are JSON texts, since templates show tools with their keys in the order given. Empty:
// None.
struct ChatInput {
  std::string messages = {};
  std::string tools = {};
  std::string documents = {};
  bool add_generation_prompt = true;
  // More variables by name, such as "enable_thinking"; these go before all others.
  std::map<std::string, std::string> variables = {};
  // One of several templates; absent: "tool_use" if there are tools and such a template, else
  // "default".
  std::optional<std::string> name = {};
  // What the template takes for now; absent: this moment, local time.
  std::optional<std::tm> now = {};
};

// Thread-safe; move-only.
class ChatTemplate {
 public:
  // kNotFound when the files hold no template, kCorrupt when one does not parse, kUnsupported when
  // it is larger than 1 MiB.
  static Result<ChatTemplate> open(const ChatTemplateFiles& files);

  // kInvalidArgument with the template's own sentence when it refuses the conversation, or with the
  // place in it where the conversation does not suit it; kUnsupported when it uses what there is
  // not or more steps, memory, time or output than a template could need.
  Result<std::string> render(const ChatInput& input) const;

  std::vector<std::string> names() const;
  // As the files have it: the one that is rendered with tools, or without.
  const std::string& source(bool with_tools) const;

 private:
  struct Free {
    void operator()(SluiceTemplate* chat_template) const;
  };

  ChatTemplate() = default;
  Status add(const std::string& name, std::string_view source);
  Result<const SluiceTemplate*> choose(const ChatInput& input) const;

  std::map<std::string, std::unique_ptr<SluiceTemplate, Free>> templates_;
  std::map<std::string, std::string> sources_;  // by the same names
  SpecialTexts special_;
};

}  // namespace sluice::tokenizer
