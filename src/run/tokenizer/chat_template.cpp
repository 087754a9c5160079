#include "tokenizer/chat_template.h"

#include <array>

#include "base/json.h"
#include "tokenizer/crate_text.h"

namespace sluice::tokenizer {
namespace {

constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";

using Variables = std::map<std::string, std::string>;

// tokenizer_config.json has one template, or a list of objects with name and template.
Result<Variables> config_templates(std::string_view file) {
  Variables templates;
  if (file.empty()) return templates;
  SLUICE_ASSIGN(const Json config, parse_json(file, "tokenizer_config.json"));
  const Json* found = json_find(config, "chat_template");
  if (found == nullptr) return templates;
  if (found->is_string()) {
    templates[kDefault] = found->get<std::string>();
    return templates;
  }
  constexpr std::string_view kLabel = "tokenizer_config.json: chat_template";
  if (!found->is_array())
    return fail(ErrorCode::kCorrupt, "{} should be a text or a list, found {}", kLabel,
                found->type_name());
  for (const Json& entry : *found) {
    SLUICE_ASSIGN(const std::string name, json_string(entry, "name", kLabel));
    SLUICE_ASSIGN(templates[name], json_string(entry, "template", kLabel));
  }
  return templates;
}

std::array<int64_t, 6> calendar(const std::optional<std::tm>& given) {
  std::tm now{};
  if (given) {
    now = *given;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &now);
  }
  return {now.tm_year + int64_t{1900},
          now.tm_mon + int64_t{1},
          now.tm_mday,
          now.tm_hour,
          now.tm_min,
          now.tm_sec};
}

std::string or_none(const std::string& json) { return json.empty() ? "null" : json; }

}  // namespace

std::string messages_json(std::span<const ChatMessage> messages) {
  std::string out = "[";
  for (const ChatMessage& message : messages) {
    if (out.size() > 1) out += ',';
    out += fmt::format(R"({{"role":{},"content":{}}})", dump_json(Json(message.role)),
                       dump_json(Json(message.content)));
  }
  return out + "]";
}

void ChatTemplate::Free::operator()(SluiceTemplate* chat_template) const {
  sluice_template_free(chat_template);
}

Status ChatTemplate::add(const std::string& name, std::string_view source) {
  SluiceTemplate* handle = nullptr;
  CrateText text;
  const int32_t code = sluice_template_open(as_bytes(source), &handle, text.out());
  if (auto opened = text.result(code); !opened) {
    if (name == kDefault) return std::unexpected(std::move(opened).error());
    return in_context(name, std::move(opened).error());
  }
  templates_[name].reset(handle);
  return {};
}

Result<ChatTemplate> ChatTemplate::open(const ChatTemplateFiles& files) {
  ChatTemplate out;
  SLUICE_ASSIGN(out.special_, read_special_texts(files.tokenizer_config, files.special_tokens_map));
  SLUICE_ASSIGN(Variables sources, config_templates(files.tokenizer_config));
  if (!files.chat_template.empty()) sources[kDefault] = files.chat_template;
  for (const NamedTemplate& more : files.additional) sources[more.name] = more.source;
  if (sources.empty()) return fail(ErrorCode::kNotFound, "the model has no chat template");
  for (const auto& [name, source] : sources) SLUICE_TRY(out.add(name, source));
  out.sources_ = std::move(sources);
  return out;
}

const std::string& ChatTemplate::source(bool with_tools) const {
  auto found = sources_.find(with_tools ? kToolUse : kDefault);
  if (found == sources_.end()) found = sources_.find(kDefault);
  return found == sources_.end() ? sources_.begin()->second : found->second;
}

std::vector<std::string> ChatTemplate::names() const {
  std::vector<std::string> names;
  for (const auto& entry : templates_) names.push_back(entry.first);
  return names;
}

Result<const SluiceTemplate*> ChatTemplate::choose(const ChatInput& input) const {
  const bool with_tools = !input.tools.empty() && templates_.contains(kToolUse);
  const std::string name = input.name.value_or(with_tools ? kToolUse : kDefault);
  const auto found = templates_.find(name);
  if (found == templates_.end())
    return fail(ErrorCode::kInvalidArgument, "the model has no chat template {}; it has {}", name,
                fmt::join(names(), ", "));
  return found->second.get();
}

Result<std::string> ChatTemplate::render(const ChatInput& input) const {
  SLUICE_ASSIGN(const SluiceTemplate* chosen, choose(input));
  Variables values = input.variables;
  values.emplace("messages", or_none(input.messages));
  values.emplace("tools", or_none(input.tools));
  values.emplace("documents", or_none(input.documents));
  values.emplace("add_generation_prompt", input.add_generation_prompt ? "true" : "false");
  for (const auto& [name, text] : special_.tokens) values.emplace(name, dump_json(Json(text)));
  if (!special_.additional.empty())
    values.emplace("additional_special_tokens", dump_json(Json(special_.additional)));

  std::vector<SluiceVariable> variables;
  for (const auto& [name, json] : values) variables.push_back({as_bytes(name), as_bytes(json)});
  const std::array<int64_t, 6> now = calendar(input.now);
  CrateText text;
  return text.result(
      sluice_template_render(chosen, variables.data(), variables.size(), now.data(), text.out()));
}

}  // namespace sluice::tokenizer
