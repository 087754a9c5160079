// Tools as models call them. Every family writes its calls in a form of its own, which its chat
// template shows; from the template follows a ToolSyntax, which finds the calls in the stream of
// text and gives the grammar that makes a model call. Running tools is the caller's business.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ordered_json.h"
#include "chat/reasoning.h"
#include "tokenizer/constraint.h"
#include "tokenizer/tokenizer.h"

namespace sluice::chat {

// docs/constraints.md shows a call in each of them.
enum class ToolFamily : uint8_t {
  kHermes,  // <tool_call>{"name": …, "arguments": {…}}</tool_call>
  kXml,     // <tool_call><function=name><parameter=key>value</parameter></function></tool_call>
  kGlm,     // <tool_call>name <arg_key>key</arg_key><arg_value>value</arg_value></tool_call>
  kLlama,   // {"name": …, "parameters": {…}}, perhaps behind <|python_tag|>
  kMistralList,   // [TOOL_CALLS][{"name": …, "arguments": {…}}]
  kMistralName,   // [TOOL_CALLS]name[ARGS]{…}
  kDeepseek,      // <｜tool▁call▁begin｜>function<｜tool▁sep｜>name, and JSON in a block of code
  kDeepseekBare,  // <｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}, from V3.1 on
  kKimi,          // <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}
  kHarmony,       // <|channel|>commentary to=functions.name <|message|>{…}<|call|>
  kGeneric,       // <tool_call> as kHermes, by a system prompt of ours: the template knows no tools
};
std::string_view tool_family_name(ToolFamily family);  // "hermes", "xml" …

// As OpenAI's tool_choice.
struct ToolChoice {
  enum class Mode : uint8_t { kAuto, kNone, kRequired, kNamed };
  Mode mode = Mode::kAuto;
  std::string name = {};  // kNamed
  bool parallel = true;   // several calls in one answer
};

// A piece of an answer, as ToolCallParser tells it.
struct AnswerPart {
  enum class Kind : uint8_t {
    kContent,    // text: more of what the user reads
    kReasoning,  // text: more of the thinking
    kCall,       // call `index` begins: id and name
    kArguments,  // text: more of the arguments of call `index`
    kCallEnd,    // call `index` is complete; text: all its arguments, a JSON object
    kCallLost,   // call `index` will not be; text: what the model wrote of it, marks included, for
                 // those who tell of complete calls only
  };
  Kind kind = Kind::kContent;
  std::string text = {};
  size_t index = 0;
  std::string id = {}, name = {};
};

// Value; the form in which a model calls tools.
class ToolSyntax {
 public:
  // template_text: the chat template's source; empty for a model without one.
  static ToolSyntax of_template(std::string_view template_text);
  // thinking: that the model may open by itself.
  explicit ToolSyntax(ToolFamily family, ThinkingMarks thinking = {})
      : family_(family), thinking_(thinking) {}

  ToolFamily family() const { return family_; }
  const ThinkingMarks& thinking() const { return thinking_; }
  // The template lists tools by itself. Otherwise describe() belongs into the system prompt, calls
  // into the assistant's messages as written() has them, and results into the user's.
  bool in_template() const { return family_ != ToolFamily::kGeneric; }
  // tools: OpenAI's list, whose order models see and are held to.
  static std::string describe(const OrderedJson& tools);
  static std::string written(std::string_view name, std::string_view arguments);
  // What kLlama's calls have before their arguments, as the grammar has it.
  static std::string bare_head(std::string_view name);
  static std::string written_result(std::string_view name, std::string_view result);

  // Special tokens that are marks of this form, and must stay in the text: for a Decoder, and for
  // GenerateOptions::shown.
  std::vector<uint32_t> shown_tokens(const tokenizer::Tokenizer& tokenizer) const;

  // Makes the answer one call (or several, if the choice says so) of these tools with arguments by
  // their schemas, after the thinking that the prompt has opened or the model opens. choice:
  // kRequired or kNamed. Errors: kInvalidArgument for tools that are none, or no tool of that name;
  // the schema's.
  Result<tokenizer::Constraint> constraint(const tokenizer::Tokenizer& tokenizer,
                                           const OrderedJson& tools, const ToolChoice& choice,
                                           std::string_view prompt) const;
  // The Lark grammar that constraint() uses.
  Result<std::string> grammar(const tokenizer::Tokenizer& tokenizer, const OrderedJson& tools,
                              const ToolChoice& choice, std::string_view prompt) const;

  // For kAuto: nothing is masked until the model begins a call by itself, outside its thinking;
  // from there on the answer is calls of these tools, as constraint() makes them. Where a tool's
  // schema cannot be enforced, its arguments are any object; none where not even that can be.
  // tokenizer outlives it. Errors: kInvalidArgument for tools that are none.
  Result<std::optional<tokenizer::Constraint>> own_calls(const tokenizer::Tokenizer& tokenizer,
                                                         const OrderedJson& tools, bool parallel,
                                                         std::string_view prompt) const;

 private:
  ToolFamily family_;
  ThinkingMarks thinking_;
};

// OpenAI's list of tools as foreign input: kInvalidArgument naming what is wrong with which.
// label: of the list in errors, such as "tools".
Status check_tools(const OrderedJson& tools, std::string_view label);
// tool_choice as OpenAI has it: absent (null), "auto", "none", "required", or an object naming one.
Result<ToolChoice> parse_tool_choice(const OrderedJson& choice, const OrderedJson& tools);

// Finds thinking, content and calls in a stream of text. A call whose arguments are JSON is told
// from where they begin, piece by piece; other forms (kXml, kGlm) when the call is whole. Nothing
// of a mark is ever content, and what only looked like a call is content as it stands. One thread.
class ToolCallParser {
 public:
  // prompt: what the model continues. tools: the list that the request gave; without any (null),
  // calls are not looked for, and only thinking is told apart (and harmony's channels). The list
  // also says which parameters of kXml and kGlm are strings.
  ToolCallParser(const ToolSyntax& syntax, std::string_view prompt, const OrderedJson& tools);
  ~ToolCallParser();
  ToolCallParser(ToolCallParser&&) noexcept;

  std::vector<AnswerPart> feed(std::string_view piece);
  // The text has ended. Every call that was begun has had its kCallEnd or its kCallLost.
  std::vector<AnswerPart> finish();

  // Calls begun, and of them those that were complete.
  size_t calls() const;
  size_t complete_calls() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::chat
