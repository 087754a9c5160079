// Which form a template's calls have, and what is asked of a request's tools.
#include <algorithm>
#include <array>

#include "chat/tool_marks.h"

namespace sluice::chat {
namespace {

constexpr size_t kToolsMax = 1000;
constexpr size_t kNameBytesMax = 256;

constexpr ToolBlock kHermesBlocks[] = {{"<tool_call>", "</tool_call>"},
                                       {"<TOOLCALL>", "</TOOLCALL>"}};
constexpr ToolBlock kXmlBlocks[] = {{"<tool_call>", "</tool_call>"}, {"<function=", "</function>"}};
constexpr ToolBlock kGlmBlocks[] = {{"<tool_call>", "</tool_call>"}};
constexpr ToolBlock kLlamaBlocks[] = {{"<|python_tag|>", ""}};
constexpr ToolBlock kMistralBlocks[] = {{marks::kMistral, ""}};
constexpr ToolBlock kDeepseekBlocks[] = {{"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"}};
constexpr ToolBlock kKimiBlocks[] = {
    {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"}};

std::span<const std::string_view> inner_marks(ToolFamily family) {
  static constexpr std::string_view kMistral[] = {marks::kMistralArgs, marks::kMistralId};
  static constexpr std::string_view kDeepseek[] = {marks::kDeepseekBegin, marks::kDeepseekSeparator,
                                                   marks::kDeepseekEnd};
  static constexpr std::string_view kKimi[] = {marks::kKimiBegin, marks::kKimiArguments,
                                               marks::kKimiEnd};
  static constexpr std::string_view kHarmony[] = {marks::kStart,     marks::kChannel,
                                                  marks::kConstrain, marks::kMessage,
                                                  marks::kEnd,       marks::kCall};
  switch (family) {
    case ToolFamily::kMistralName: return kMistral;
    case ToolFamily::kDeepseek:
    case ToolFamily::kDeepseekBare: return kDeepseek;
    case ToolFamily::kKimi: return kKimi;
    case ToolFamily::kHarmony: return kHarmony;
    default: return {};
  }
}

ToolFamily family_of(std::string_view text) {
  const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  if (has(marks::kChannel) && has(marks::kMessage)) return ToolFamily::kHarmony;
  if (has(kKimiBlocks[0].open)) return ToolFamily::kKimi;
  if (has(kDeepseekBlocks[0].open))
    return has("```json") ? ToolFamily::kDeepseek : ToolFamily::kDeepseekBare;
  if (has(marks::kMistral))
    return has(marks::kMistralArgs) ? ToolFamily::kMistralName : ToolFamily::kMistralList;
  if (has("<arg_key>")) return ToolFamily::kGlm;
  if (has("<function=") && has("<parameter=")) return ToolFamily::kXml;
  // Templates that leave the marks to the model's own words would look the same without tools.
  if (has("tools") && (has("<tool_call>") || has("<TOOLCALL>"))) return ToolFamily::kHermes;
  if (has("tools") && has("\"parameters\": ")) return ToolFamily::kLlama;
  return ToolFamily::kGeneric;
}

Status check_tool(const OrderedJson& tool, const std::string& label) {
  const OrderedJson* function = tool.is_object() ? json_find(tool, "function") : nullptr;
  if (function == nullptr || !function->is_object())
    return fail(ErrorCode::kInvalidArgument, "{}.function should be an object", label);
  const OrderedJson* name = json_find(*function, "name");
  const bool named = name != nullptr && name->is_string() && !name->get<std::string>().empty() &&
                     name->get<std::string>().size() <= kNameBytesMax;
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-' || c == '.';
  };
  if (!named || !std::ranges::all_of(name->get<std::string>(), plain))
    return fail(ErrorCode::kInvalidArgument,
                "{}.function.name should be a name of letters, digits, _, - and .", label);
  const OrderedJson* parameters = json_find(*function, "parameters");
  if (parameters != nullptr && !parameters->is_object() && !parameters->is_null())
    return fail(ErrorCode::kInvalidArgument, "{}.function.parameters should be a JSON schema",
                label);
  return {};
}

}  // namespace

std::span<const ToolBlock> tool_blocks(ToolFamily family) {
  switch (family) {
    case ToolFamily::kHermes:
    case ToolFamily::kGeneric: return kHermesBlocks;
    case ToolFamily::kXml: return kXmlBlocks;
    case ToolFamily::kGlm: return kGlmBlocks;
    case ToolFamily::kLlama: return kLlamaBlocks;
    case ToolFamily::kMistralList:
    case ToolFamily::kMistralName: return kMistralBlocks;
    case ToolFamily::kDeepseek:
    case ToolFamily::kDeepseekBare: return kDeepseekBlocks;
    case ToolFamily::kKimi: return kKimiBlocks;
    case ToolFamily::kHarmony: return {};
  }
  return {};
}

std::string_view tool_family_name(ToolFamily family) {
  constexpr std::array<std::string_view, 11> kNames = {
      "hermes",   "xml",           "glm",  "llama",   "mistral-list", "mistral-name",
      "deepseek", "deepseek-bare", "kimi", "harmony", "generic"};
  return kNames[static_cast<size_t>(family)];
}

ToolSyntax ToolSyntax::of_template(std::string_view template_text) {
  return ToolSyntax(family_of(template_text), template_thinking(template_text));
}

std::string ToolSyntax::describe(const OrderedJson& tools) {
  std::string text = "You may call these tools, each described by a JSON schema:\n<tools>\n";
  for (const OrderedJson& tool : tools) text += dump_json(tool) + "\n";
  return text +
         "</tools>\nTo call one, write nothing but a JSON object with its name and arguments, as "
         "in:\n<tool_call>\n{\"name\": \"tool\", \"arguments\": {\"key\": \"value\"}}\n"
         "</tool_call>\nThe result follows between <tool_response> and </tool_response>.";
}

std::string ToolSyntax::written(std::string_view name, std::string_view arguments) {
  return "<tool_call>\n{\"name\": " + dump_json(Json(name)) +
         ", \"arguments\": " + std::string(arguments) + "}\n</tool_call>";
}

std::string ToolSyntax::bare_head(std::string_view name) {
  return "{\"name\": " + dump_json(Json(name)) + ", \"parameters\": ";
}

std::string ToolSyntax::written_result(std::string_view name, std::string_view result) {
  return "<tool_response>\n{\"name\": " + dump_json(Json(name)) +
         ", \"content\": " + dump_json(Json(result)) + "}\n</tool_response>";
}

std::vector<uint32_t> ToolSyntax::shown_tokens(const tokenizer::Tokenizer& tokenizer) const {
  std::vector<uint32_t> shown;
  const auto add = [&](std::string_view mark) {
    const auto id = mark.empty() ? std::nullopt : tokenizer.id(mark);
    if (id && tokenizer.is_special(*id)) shown.push_back(*id);
  };
  for (const ToolBlock& block : tool_blocks(family_)) {
    add(block.open);
    add(block.close);
  }
  for (const std::string_view mark : inner_marks(family_)) add(mark);
  // Where thinking's marks are special tokens, they tell thoughts from the answer all the same.
  for (const std::string_view mark : {"<think>", "</think>", "[THINK]", "[/THINK]"}) add(mark);
  return shown;
}

Status check_tools(const OrderedJson& tools, std::string_view label) {
  if (!tools.is_array()) return fail(ErrorCode::kInvalidArgument, "{} should be a list", label);
  if (tools.size() > kToolsMax)
    return fail(ErrorCode::kInvalidArgument, "{} has {} entries; at most {} are taken", label,
                tools.size(), kToolsMax);
  for (size_t at = 0; at < tools.size(); ++at)
    SLUICE_TRY(check_tool(tools[at], fmt::format("{}[{}]", label, at)));
  return {};
}

Result<ToolChoice> parse_tool_choice(const OrderedJson& choice, const OrderedJson& tools) {
  using Mode = ToolChoice::Mode;
  const bool any = tools.is_array() && !tools.empty();
  if (choice.is_null() || choice == OrderedJson("auto")) return ToolChoice{};
  if (choice == OrderedJson("none")) return ToolChoice{.mode = Mode::kNone};
  if (choice == OrderedJson("required")) {
    if (any) return ToolChoice{.mode = Mode::kRequired};
    return fail(ErrorCode::kInvalidArgument, "tool_choice is \"required\" but there are no tools");
  }
  const OrderedJson* function = choice.is_object() ? json_find(choice, "function") : nullptr;
  const OrderedJson* name =
      function != nullptr && function->is_object() ? json_find(*function, "name") : nullptr;
  if (name == nullptr || !name->is_string())
    return fail(ErrorCode::kInvalidArgument,
                "tool_choice should be \"auto\", \"none\", \"required\" or an object with "
                "function.name");
  const auto named = [&](const OrderedJson& tool) { return tool["function"]["name"] == *name; };
  if (!any || std::ranges::none_of(tools, named))
    return fail(ErrorCode::kInvalidArgument, "tool_choice names {}, which is not among the tools",
                dump_json(*name));
  return ToolChoice{.mode = Mode::kNamed, .name = name->get<std::string>()};
}

}  // namespace sluice::chat
