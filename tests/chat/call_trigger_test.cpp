// Calls that a model begins by itself: free until then, by the tools' schemas from there on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chat/tool_calls.h"
#include "tokenizer/tiny_tokenizers.h"

namespace sluice::chat {
namespace {

using ::testing::HasSubstr;

const Json kTools = Json::parse(R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"enum": ["Bonn", "Ulm"]}, "days": {"type": "integer"}},
    "required": ["city", "days"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "now"}}])");

tokenizer::Tokenizer open_tokenizer(const std::vector<std::string>& marks = {}) {
  Json json = tokenizer::testing::byte_level();
  uint32_t next = 300;
  for (const std::string& mark : marks)
    json["added_tokens"].push_back(tokenizer::testing::added_token(next++, mark));
  return tokenizer::testing::open(json).value();
}

// What a model with this constraint writes that wants to write the pieces: special tokens are
// pieces of their own, the rest goes byte by byte. Where the next is forbidden, what is forced is
// taken until it fits again, or the end.
class Writer {
 public:
  Writer(const tokenizer::Tokenizer& tokenizer, ToolFamily family, const Json& tools,
         std::string_view prompt = "")
      : tokenizer_(tokenizer),
        constraint_(*ToolSyntax(family).own_calls(tokenizer, tools, true, prompt).value()) {}

  bool allows(uint32_t token) {
    const auto mask = constraint_.mask({}).value();
    return token / 32 < mask.size() && (mask[token / 32] >> token % 32 & 1) != 0;
  }
  // How much of the text was allowed.
  size_t write(std::string_view text) {
    if (const auto id = tokenizer_.id(text); id && tokenizer_.is_special(*id)) {
      if (!allows(*id)) return 0;
      EXPECT_TRUE(constraint_.take(*id));
      return text.size();
    }
    for (size_t at = 0; at < text.size(); ++at) {
      const auto token = static_cast<uint8_t>(text[at]);
      if (!allows(token)) return at;
      EXPECT_TRUE(constraint_.take(token));
    }
    return text.size();
  }
  bool writes(std::string_view text) { return write(text) == text.size(); }
  bool free() { return allows('x') && allows('}') && allows('\n') && may_end(); }
  bool may_end() { return constraint_.may_end().value(); }
  tokenizer::Constraint& constraint() { return constraint_; }

 private:
  const tokenizer::Tokenizer& tokenizer_;
  tokenizer::Constraint constraint_;
};

struct Case {
  ToolFamily family;
  std::string_view beginning, wrong, rest;
};

TEST(CallTrigger, ACallIsHeldToItsSchemaFromItsMarkOn) {
  const auto tokenizer = open_tokenizer();
  const Case cases[] = {
      {ToolFamily::kHermes, "I look.\n<tool_call>", "\n{\"name\": \"x",
       "eather\", \"arguments\": {\"city\": \"Bonn\", \"days\": 3}}\n</tool_call>"},
      {ToolFamily::kGeneric, "<tool_call>\n{\"name\": \"now\", \"arguments\": ", "[",
       "{}}\n</tool_call>"},
      {ToolFamily::kXml, "<tool_call>", "\n<function=weather>\n<parameter=city>\nParis", ""},
      {ToolFamily::kGlm, "Well. <tool_call>", "weather<arg_key>days", ""},
      {ToolFamily::kLlama, "{\"name\":\"weather\",\"parameters\":{", "\"days", ""},
      {ToolFamily::kLlama, "{\"type\": \"function\", \"name\": \"weather\", \"parameters\": {", "}",
       ""},
      {ToolFamily::kMistralList, "[TOOL_CALLS]", "[{\"name\": \"weather\", \"arguments\": {}", ""},
      {ToolFamily::kMistralName, "Yes.[TOOL_CALLS]weather[ARGS]{", "\"town", ""},
      {ToolFamily::kDeepseekBare, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now", "x", ""},
      {ToolFamily::kKimi, "<|tool_calls_section_begin|><|tool_call_begin|>functions.", "f", ""},
  };
  for (const Case& each : cases) {
    Writer writer(tokenizer, each.family, kTools);
    EXPECT_TRUE(writer.free());
    ASSERT_TRUE(writer.writes(each.beginning)) << each.beginning;
    EXPECT_FALSE(writer.may_end()) << each.beginning;
    EXPECT_FALSE(writer.writes(each.wrong)) << each.beginning << each.wrong;
  }
}

TEST(CallTrigger, WhatIsWrittenIsReadBack) {
  const auto tokenizer = open_tokenizer();
  constexpr std::string_view kText =
      "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\", \"days\": "
      "3}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  Writer writer(tokenizer, ToolFamily::kHermes, kTools);
  ASSERT_TRUE(writer.writes(kText));
  EXPECT_TRUE(writer.may_end());
  EXPECT_FALSE(writer.allows('x')) << "behind calls come calls alone";
}

TEST(CallTrigger, TextIsFreeWhereNoCallBegins) {
  const auto tokenizer = open_tokenizer();
  const std::pair<ToolFamily, std::string_view> texts[] = {
      {ToolFamily::kHermes, "<think>A <tool_call> might do.</think>2 < 3, <tool_cal"},
      {ToolFamily::kLlama, "{\"city\": \"Bonn\"} {\"name\": \"now\", \"parameters\": {"},
      {ToolFamily::kLlama, "{\"name\": \"other\", \"parameters\": {\"x"},
      {ToolFamily::kHermes, "<TOOLCALL>[{\"name\""},
      {ToolFamily::kMistralName, "[TOOL_CALL"},
  };
  for (const auto& [family, text] : texts) {
    Writer writer(tokenizer, family, kTools);
    EXPECT_TRUE(writer.writes(text)) << text;
    EXPECT_TRUE(writer.free()) << text;
  }
  Writer thinking(tokenizer, ToolFamily::kHermes, kTools, "<|assistant|><think>\n");
  EXPECT_TRUE(thinking.writes("a <tool_call> is")) << "the prompt has opened the thinking";
  EXPECT_TRUE(thinking.free());
  EXPECT_TRUE(thinking.writes("</think><tool_call>"));
  EXPECT_FALSE(thinking.free());
}

TEST(CallTrigger, ATokenMayReachBeyondTheMark) {
  Json json = tokenizer::testing::byte_level();
  json["model"]["vocab"]["call>\u010a"] = 290;  // with a line break, as byte-level spells it
  json["model"]["vocab"]["call>{"] = 291;
  const auto tokenizer = tokenizer::testing::open(json).value();
  Writer fits(tokenizer, ToolFamily::kHermes, kTools);
  ASSERT_TRUE(fits.writes("<tool_"));
  ASSERT_TRUE(fits.constraint().take(290));
  EXPECT_FALSE(fits.free());
  EXPECT_TRUE(fits.writes("{\"name\": \"now\""));
  Writer differs(tokenizer, ToolFamily::kHermes, kTools);
  ASSERT_TRUE(differs.writes("<tool_"));
  ASSERT_TRUE(differs.constraint().take(291));
  EXPECT_TRUE(differs.free()) << "not as the grammar has it";
}

TEST(CallTrigger, MarksThatAreTokens) {
  const auto tokenizer = open_tokenizer({"<tool_call>", "</tool_call>"});
  Writer writer(tokenizer, ToolFamily::kHermes, kTools);
  ASSERT_TRUE(writer.writes("Hm. "));
  ASSERT_TRUE(writer.writes("<tool_call>"));
  EXPECT_TRUE(writer.writes("\n{\"name\": \"now\", \"arguments\": {}}\n"));
  EXPECT_TRUE(writer.writes("</tool_call>"));
  EXPECT_TRUE(writer.may_end());
}

TEST(CallTrigger, HarmonysArgumentsAreHeld) {
  const auto tokenizer =
      open_tokenizer({"<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|return|>"});
  Writer writer(tokenizer, ToolFamily::kHarmony, kTools, "<|start|>assistant");
  for (const std::string_view piece :
       {"<|channel|>", "analysis", "<|message|>", "to=functions.weather <", "<|end|>", "<|start|>",
        "assistant to=functions.weather", "<|channel|>", "commentary json"})
    ASSERT_TRUE(writer.writes(piece)) << piece;
  EXPECT_TRUE(writer.free());
  ASSERT_TRUE(writer.writes("<|message|>"));
  EXPECT_FALSE(writer.free());
  EXPECT_FALSE(writer.writes("{\"town"));
}

TEST(CallTrigger, WhatCannotBeEnforcedIsAnyObject) {
  const auto tokenizer = open_tokenizer();
  Json tools = kTools;
  tools[1]["function"]["parameters"] = {{"type", "object"}, {"not", {{"required", {"a"}}}}};
  Writer writer(tokenizer, ToolFamily::kHermes, tools);
  EXPECT_TRUE(
      writer.writes("<tool_call>\n{\"name\": \"now\", \"arguments\": {\"b\": [1]}}\n</tool_call>"));
  Writer other(tokenizer, ToolFamily::kHermes, tools);
  EXPECT_FALSE(other.writes("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"b"));
  EXPECT_FALSE(ToolSyntax(ToolFamily::kHermes).own_calls(tokenizer, Json("x"), true, ""));
}

TEST(CallTrigger, ClonesGoOnApart) {
  const auto tokenizer = open_tokenizer();
  Writer writer(tokenizer, ToolFamily::kHermes, kTools);
  ASSERT_TRUE(writer.writes("Hm <tool_"));
  auto copy = writer.constraint().clone().value();
  ASSERT_TRUE(writer.writes("call>"));
  EXPECT_FALSE(writer.free());
  EXPECT_TRUE(copy.may_end().value());
  for (const char c : std::string_view("call>")) ASSERT_TRUE(copy.take(static_cast<uint8_t>(c)));
  EXPECT_FALSE(copy.may_end().value());
  const std::vector<uint32_t> guess = {'x', 'y'};
  EXPECT_EQ(copy.count_allowed(guess).value(), 0u);
}

}  // namespace
}  // namespace sluice::chat
