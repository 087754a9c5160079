// The grammar that makes a model call a tool, in its family's form.
#include <algorithm>

#include "chat/answer_form.h"
#include "chat/tool_marks.h"
#include "chat/tool_trigger.h"

namespace sluice::chat {
namespace {

std::string literal(std::string_view text) { return dump_json(Json(text)); }

// Lark rules as they are written, for one family.
class Grammar {
 public:
  Grammar(ToolFamily family, const tokenizer::Tokenizer& tokenizer)
      : family_(family), tokenizer_(tokenizer) {}

  Status add_tool(const OrderedJson& function, size_t index);
  std::string text(const std::string& before, bool parallel) const;

 private:
  std::string mark(std::string_view text) const;
  std::string rule(std::string_view name, const std::string& body);
  Result<std::string> call(const OrderedJson& function, size_t index);
  Result<std::string> parameters(const OrderedJson& schema, size_t index);
  Result<std::string> value(const OrderedJson& schema, const OrderedJson& parameter,
                            const std::string& name, std::string_view closing);
  std::string joined(const std::string& calls, bool parallel) const;

  const ToolFamily family_;
  const tokenizer::Tokenizer& tokenizer_;
  std::string rules_, calls_;
};

std::string Grammar::mark(std::string_view text) const { return lark_mark(tokenizer_, text); }

std::string Grammar::rule(std::string_view name, const std::string& body) {
  rules_ += fmt::format("{}: {}\n", name, body);
  return std::string(name);
}

OrderedJson argument_schema(const OrderedJson& function) {
  const OrderedJson* parameters = json_find(function, "parameters");
  OrderedJson schema =
      parameters != nullptr && parameters->is_object() ? *parameters : OrderedJson::object();
  if (!schema.contains("type") && !schema.contains("$ref")) schema["type"] = "object";
  return schema;
}

// What stands between an opening and a closing tag: a string as it is, up to the closing tag, or
// JSON. closing: the tag with the line break before it, if that is the form's.
Result<std::string> Grammar::value(const OrderedJson& schema, const OrderedJson& parameter,
                                   const std::string& name, std::string_view closing) {
  const OrderedJson* type = json_find(parameter, "type");
  const OrderedJson* choices = json_find(parameter, "enum");
  if (type != nullptr && *type == "string" && choices != nullptr && choices->is_array()) {
    std::string texts;
    for (const OrderedJson& choice : *choices)
      if (choice.is_string())
        texts += (texts.empty() ? "" : " | ") + literal(choice.get<std::string>());
    if (!texts.empty()) return fmt::format("({}) {}", texts, literal(closing));
  }
  if (type != nullptr && *type == "string")
    return rule(name + "[lazy]", lark_regex("(.|\n)*" + std::string(closing)))
        .substr(0, name.size());
  OrderedJson whole = parameter;
  for (const char* key : {"$defs", "definitions"})
    if (const OrderedJson* shared = json_find(schema, key)) whole[key] = *shared;
  SLUICE_ASSIGN(const std::string json, lark_json(dump_json(whole)));
  return rule(name, json) + " " + literal(closing);
}

Result<std::string> Grammar::parameters(const OrderedJson& schema, size_t index) {
  const bool xml = family_ == ToolFamily::kXml;
  const OrderedJson* properties = json_find(schema, "properties");
  if (properties == nullptr || !properties->is_object()) return std::string();
  const OrderedJson* required = json_find(schema, "required");
  std::string text;
  size_t number = 0;
  for (const auto& [key, parameter] : properties->items()) {
    const std::string name = fmt::format("value_{}_{}", index, number++);
    const std::string opening =
        xml ? "<parameter=" + key + ">\n" : "<arg_key>" + key + "</arg_key>";
    SLUICE_ASSIGN(const std::string inside,
                  value(schema, parameter, name, xml ? "\n</parameter>\n" : "</arg_value>"));
    const std::string between = xml ? "" : " \"\\n\"? \"<arg_value>\"";
    const bool must = required != nullptr && required->is_array() &&
                      std::ranges::find(*required, OrderedJson(key)) != required->end();
    text += fmt::format(" ({}{} {}{}){}", literal(opening), between, inside, xml ? "" : " \"\\n\"?",
                        must ? "" : "?");
  }
  return text;
}

Result<std::string> Grammar::call(const OrderedJson& function, size_t index) {
  const std::string name = function["name"].get<std::string>();
  const OrderedJson schema = argument_schema(function);
  if (family_ == ToolFamily::kXml) {
    SLUICE_ASSIGN(const std::string inside, parameters(schema, index));
    return mark("<tool_call>") + " " + literal("\n<function=" + name + ">\n") + inside + " " +
           literal("</function>\n") + " " + mark("</tool_call>");
  }
  if (family_ == ToolFamily::kGlm) {
    SLUICE_ASSIGN(const std::string inside, parameters(schema, index));
    return mark("<tool_call>") + " " + literal(name) + " \"\\n\"?" + inside + " " +
           mark("</tool_call>");
  }
  SLUICE_ASSIGN(const std::string json, lark_json(dump_json(schema)));
  const std::string arguments = rule(fmt::format("arguments_{}", index), json);
  std::string object =
      literal("{\"name\": " + literal(name) + ", \"arguments\": ") + " " + arguments + " \"}\"";
  switch (family_) {
    case ToolFamily::kLlama:
      return literal(ToolSyntax::bare_head(name)) + " " + arguments + " \"}\"";
    case ToolFamily::kMistralList: return object;
    case ToolFamily::kMistralName:
      return mark(marks::kMistral) + " " + literal(name) + " " + mark(marks::kMistralArgs) + " " +
             arguments;
    case ToolFamily::kDeepseek:
      return mark(marks::kDeepseekBegin) + " \"function\" " + mark(marks::kDeepseekSeparator) +
             " " + literal(name + "\n```json\n") + " " + arguments + " \"\\n```\" " +
             mark(marks::kDeepseekEnd);
    case ToolFamily::kDeepseekBare:
      return mark(marks::kDeepseekBegin) + " " + literal(name) + " " +
             mark(marks::kDeepseekSeparator) + " " + arguments + " " + mark(marks::kDeepseekEnd);
    case ToolFamily::kKimi:
      return mark(marks::kKimiBegin) + " " + literal("functions." + name + ":") + " /[0-9]{1,3}/ " +
             mark(marks::kKimiArguments) + " " + arguments + " " + mark(marks::kKimiEnd);
    case ToolFamily::kHarmony:
      return mark(marks::kChannel) + " " + literal("commentary to=functions." + name + " ") + " " +
             mark(marks::kConstrain) + " \"json\" " + mark(marks::kMessage) + " " + arguments;
    default: return mark("<tool_call>") + " \"\\n\" " + object + " \"\\n\" " + mark("</tool_call>");
  }
}

Status Grammar::add_tool(const OrderedJson& function, size_t index) {
  SLUICE_ASSIGN(const std::string body, call(function, index));
  calls_ += (calls_.empty() ? "" : " | ") + rule(fmt::format("call_{}", index), body);
  return {};
}

// Several calls in the form of the family; those whose form holds one only have one.
std::string Grammar::joined(const std::string& calls, bool parallel) const {
  const auto many = [&](std::string_view separator) {
    return parallel ? fmt::format("{0} ({1} {0})*", calls, separator) : calls;
  };
  const auto blocks = tool_blocks(family_);
  switch (family_) {
    case ToolFamily::kLlama:
    case ToolFamily::kHarmony: return calls;
    case ToolFamily::kMistralList:
      return mark(marks::kMistral) + " \"[\" " + many("\", \"") + " \"]\"";
    case ToolFamily::kMistralName: return many("");
    case ToolFamily::kDeepseek:
    case ToolFamily::kDeepseekBare:
    case ToolFamily::kKimi:
      return mark(blocks[0].open) + " " + many(family_ == ToolFamily::kDeepseek ? "\"\\n\"" : "") +
             " " + mark(blocks[0].close);
    default: return many("\"\\n\"");
  }
}

std::string Grammar::text(const std::string& before, bool parallel) const {
  return fmt::format("start: {} {}\none: {}\n{}", before, joined("one", parallel), calls_, rules_);
}

}  // namespace

Result<std::string> ToolSyntax::grammar(const tokenizer::Tokenizer& tokenizer,
                                        const OrderedJson& tools, const ToolChoice& choice,
                                        std::string_view prompt) const {
  SLUICE_TRY(check_tools(tools, "tools"));
  Grammar grammar(family_, tokenizer);
  bool any = false;
  for (size_t at = 0; at < tools.size(); ++at) {
    const OrderedJson& function = tools[at]["function"];
    if (choice.mode == ToolChoice::Mode::kNamed && function["name"] != choice.name) continue;
    if (auto added = grammar.add_tool(function, at); !added)
      return in_context(fmt::format("tools[{}].function.parameters", at), std::move(added).error());
    any = true;
  }
  if (!any)
    return fail(ErrorCode::kInvalidArgument, "there is no tool{} to call",
                choice.name.empty() ? "" : " " + choice.name);
  const bool parallel = choice.parallel && choice.mode != ToolChoice::Mode::kNamed;
  if (family_ == ToolFamily::kHarmony) {
    // No special token is text, so thoughts end where their mark stands.
    const auto id = [&](std::string_view mark) {
      return fmt::format("<[{}]>", tokenizer.id(mark).value_or(0));
    };
    const std::string thoughts =
        fmt::format("({} \"analysis\" {} /(.|\\n)*/ {} {} \"assistant\")?", id(marks::kChannel),
                    id(marks::kMessage), id(marks::kEnd), id(marks::kStart));
    return grammar.text(thoughts, parallel);
  }
  const ThinkingRule thinking = thinking_rule(tokenizer, prompt, thinking_);
  return grammar.text(thinking.before, parallel) + thinking.rules;
}

Result<tokenizer::Constraint> ToolSyntax::constraint(const tokenizer::Tokenizer& tokenizer,
                                                     const OrderedJson& tools,
                                                     const ToolChoice& choice,
                                                     std::string_view prompt) const {
  SLUICE_ASSIGN(const std::string lark, grammar(tokenizer, tools, choice, prompt));
  auto constraint = tokenizer::Constraint::lark(tokenizer, lark);
  if (!constraint) return in_context("tools", std::move(constraint).error());
  return constraint;
}

namespace {

// What cannot be enforced of a tool's schema is left to the model.
OrderedJson enforceable(const tokenizer::Tokenizer& tokenizer, OrderedJson tools) {
  for (OrderedJson& tool : tools) {
    const std::string schema = dump_json(argument_schema(tool["function"]));
    if (!tokenizer::Constraint::json_schema(tokenizer, schema))
      tool["function"]["parameters"] = {{"type", "object"}};
  }
  return tools;
}

}  // namespace

Result<std::optional<tokenizer::Constraint>> ToolSyntax::own_calls(
    const tokenizer::Tokenizer& tokenizer, const OrderedJson& tools, bool parallel,
    std::string_view prompt) const {
  const ToolChoice any{.mode = ToolChoice::Mode::kRequired, .parallel = parallel};
  const ToolSyntax bare(family_);  // thinking comes before
  SLUICE_TRY(check_tools(tools, "tools"));
  auto held = bare.constraint(tokenizer, tools, any, "");
  if (!held) held = bare.constraint(tokenizer, enforceable(tokenizer, tools), any, "");
  if (!held) return std::nullopt;
  std::vector<std::string> names;
  for (const OrderedJson& tool : tools)
    names.push_back(tool["function"]["name"].get<std::string>());
  return tokenizer::Constraint::after(
      std::make_unique<CallTrigger>(tokenizer, *this, std::string(prompt), std::move(names)),
      std::move(*held));
}

}  // namespace sluice::chat
