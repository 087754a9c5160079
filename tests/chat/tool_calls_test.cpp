// Calls of every family, in one piece and cut everywhere: the same parts come out, and nothing of a
// mark is ever content. Forced calls are read back by the parser.
#include "chat/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "support/seed.h"
#include "tokenizer/tiny_tokenizers.h"

namespace sluice::chat {
namespace {

using ::testing::HasSubstr;
using Kind = AnswerPart::Kind;

const Json kTools = Json::parse(R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"], "additionalProperties": false}}},
  {"type": "function", "function": {"name": "now"}}])");

struct Answer {
  std::string content, reasoning, calls;  // calls: "name(arguments)" one behind the other
  std::string lost;                       // what was written of calls that did not end
  size_t begun = 0, pieces = 0;           // pieces of arguments
};

class Reader {
 public:
  Reader(ToolFamily family, std::string_view prompt, const Json& tools)
      : parser_(ToolSyntax(family), prompt, tools) {}

  void feed(std::string_view piece) { take(parser_.feed(piece)); }
  Answer finish() {
    take(parser_.finish());
    answer.begun = parser_.calls();
    return answer;
  }
  Answer answer;

 private:
  void take(const std::vector<AnswerPart>& parts) {
    for (const AnswerPart& part : parts) {
      if (part.kind == Kind::kContent) answer.content += part.text;
      if (part.kind == Kind::kReasoning) answer.reasoning += part.text;
      if (part.kind == Kind::kCallLost) answer.lost += part.text;
      if (part.kind == Kind::kCall) {
        EXPECT_FALSE(part.id.empty());
        answer.calls += part.name + "(";
        arguments_.clear();
      }
      if (part.kind == Kind::kArguments) {
        answer.calls += part.text;
        arguments_ += part.text;
        ++answer.pieces;
      }
      if (part.kind != Kind::kCallEnd) continue;
      answer.calls += ")";
      EXPECT_EQ(part.text, arguments_) << "the pieces are the whole";
    }
  }

  ToolCallParser parser_;
  std::string arguments_;
};

Answer read(ToolFamily family, std::string_view text, size_t piece, std::string_view prompt = "",
            const Json& tools = kTools) {
  Reader reader(family, prompt, tools);
  for (size_t at = 0; at < text.size(); at += piece) reader.feed(text.substr(at, piece));
  return reader.finish();
}

struct Case {
  ToolFamily family;
  std::string_view text;
  std::string_view content, reasoning, calls;
};

constexpr std::string_view kBoth = R"(weather({"city": "Bonn", "days": 3})now({}))";

const Case kCases[] = {
    {ToolFamily::kHermes,
     "<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": "
     "{\"city\": "
     "\"Bonn\", \"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": "
     "{}}\n</tool_call>",
     "I look.", "Hm.", kBoth},
    {ToolFamily::kHermes,
     "<TOOLCALL>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\", \"days\": 3}}, "
     "{\"name\": \"now\", \"arguments\": \"{}\"}]</TOOLCALL>",
     "", "", kBoth},
    {ToolFamily::kXml,
     "Yes.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n"
     "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<function=now>\n</function>",
     "Yes.", "", kBoth},
    {ToolFamily::kGlm,
     "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bonn</arg_value>\n"
     "<arg_key>days</arg_key><arg_value>3</arg_value>\n</tool_call><tool_call>now</tool_call>",
     "", "", kBoth},
    {ToolFamily::kLlama,
     "{\"name\": \"weather\", \"parameters\": {\"city\": \"Bonn\", \"days\": 3}}; {\"type\": "
     "\"function\", \"name\": \"now\", \"parameters\": {}}",
     "", "", kBoth},
    {ToolFamily::kLlama,
     "<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"city\": \"Bonn\", \"days\": 3}}", "",
     "", R"(weather({"city": "Bonn", "days": 3}))"},
    {ToolFamily::kMistralList,
     "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\", \"days\": 3}}, "
     "{\"name\": \"now\", \"arguments\": {}, \"id\": \"abcdefghi\"}]",
     "", "", kBoth},
    {ToolFamily::kMistralName,
     "Well.[TOOL_CALLS]weather[ARGS]{\"city\": \"Bonn\", \"days\": "
     "3}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}",
     "Well.", "", kBoth},
    {ToolFamily::kDeepseek,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\":"
     " "
     "\"Bonn\", \"days\": "
     "3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n"
     "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "", "", kBoth},
    {ToolFamily::kDeepseekBare,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Bonn\", "
     "\"days\": "
     "3}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>",
     "", "", kBoth},
    {ToolFamily::kKimi,
     "I see.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
     "<|tool_call_argument_begin|>{\"city\": \"Bonn\", \"days\": 3}<|tool_call_end|>"
     "<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
     "<|tool_calls_section_end|>",
     "I see.", "", kBoth},
    {ToolFamily::kHarmony,
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.weather <|constrain|>json<|message|>{\"city\": \"Bonn\", \"days\": "
     "3}<|end|><|start|>assistant to=functions.now<|channel|>commentary<|message|>{}",
     "", "Hm.", kBoth},
    {ToolFamily::kHarmony,
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.",
     "Hello.", "Hm.", ""},
    {ToolFamily::kGeneric,
     "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\", \"days\": "
     "3}}\n</tool_call>",
     "", "", R"(weather({"city": "Bonn", "days": 3}))"},
};

TEST(ToolCallParser, ReadsEveryFamilyHoweverItIsCut) {
  for (const Case& each : kCases) {
    for (const size_t piece : {each.text.size(), size_t{1}, size_t{3}, size_t{7}}) {
      const Answer answer = read(each.family, each.text, piece);
      EXPECT_EQ(answer.content, each.content) << each.text << " by " << piece;
      EXPECT_EQ(answer.reasoning, each.reasoning) << each.text << " by " << piece;
      EXPECT_EQ(answer.calls, each.calls) << each.text << " by " << piece;
    }
  }
}

// Into three pieces at every two places, and what is told is the same.
TEST(ToolCallParser, EveryCutTellsTheSame) {
  for (const Case& each : kCases)
    for (size_t first = 0; first <= each.text.size(); ++first)
      for (size_t second = first; second <= each.text.size(); second += 1 + second / 90) {
        Reader reader(each.family, "", kTools);
        reader.feed(each.text.substr(0, first));
        reader.feed(each.text.substr(first, second - first));
        reader.feed(each.text.substr(second));
        const Answer answer = reader.finish();
        ASSERT_EQ(answer.calls, each.calls) << each.text << " at " << first << ", " << second;
        ASSERT_EQ(answer.content, each.content) << each.text << " at " << first << ", " << second;
        ASSERT_EQ(answer.lost, "") << each.text << " at " << first << ", " << second;
      }
}

// The arguments that have come are told before the next piece comes.
TEST(ToolCallParser, ArgumentsAreToldAsTheyCome) {
  for (const Case& each : kCases) {
    const size_t written = each.text.find("Bonn");
    if (each.calls.empty() || each.text.starts_with("<TOOLCALL>")) continue;
    Reader reader(each.family, "", kTools);
    reader.feed(each.text.substr(0, written + 2));
    const bool json = each.family != ToolFamily::kXml && each.family != ToolFamily::kGlm;
    EXPECT_EQ(reader.answer.calls, json ? "weather({\"city\": \"Bo" : "") << each.text;
    for (const char c : each.text.substr(written + 2)) reader.feed({&c, 1});
    EXPECT_GT(reader.finish().pieces, json ? 10u : 0u) << each.text;
  }
}

TEST(ToolCallParser, ACallWithoutItsEndIsLost) {
  const std::pair<ToolFamily, std::string_view> cases[] = {
      {ToolFamily::kHermes, "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"</tool_call>"},
      {ToolFamily::kLlama, "{\"name\": \"now\", \"parameters\": {\"a\": [1, 2"},
      {ToolFamily::kMistralName, "[TOOL_CALLS]now[ARGS]{\"a\": "},
      {ToolFamily::kMistralName, "[TOOL_CALLS]now[ARGS]{\"a\": 1, \"a\": 2}"},
  };
  for (const auto& [family, text] : cases)
    for (const size_t piece : {text.size(), size_t{1}}) {
      const Answer answer = read(family, text, piece);
      EXPECT_EQ(answer.lost, text);
      EXPECT_EQ(answer.content, "");
      EXPECT_EQ(answer.begun, 1u);
      EXPECT_THAT(answer.calls, HasSubstr("now({\"a\": "));
      EXPECT_EQ(answer.calls.find(')'), std::string::npos);
    }
}

// Marks within the arguments' strings are text, and what is wrong behind them loses no call.
TEST(ToolCallParser, ArgumentsEndWhereTheirObjectEnds) {
  for (const std::string_view behind : {"}\n", "", "}}", ", \"id\": \"x\"}"}) {
    const std::string text =
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"a</tool_call>{b\"}" +
        std::string(behind) + "</tool_call>\nDone.";
    for (const size_t piece : {text.size(), size_t{1}, size_t{5}}) {
      const Answer answer = read(ToolFamily::kHermes, text, piece);
      EXPECT_EQ(answer.calls, "weather({\"city\": \"a</tool_call>{b\"})") << text;
      EXPECT_EQ(answer.content, "\nDone.") << text;
    }
  }
}

TEST(ToolCallParser, CallsInAnotherOrderAreReadWhole) {
  const std::string_view texts[] = {
      "<tool_call>{\"arguments\": {\"city\": \"Bonn\", \"days\": 3}, \"name\": "
      "\"weather\"}</tool_call><tool_call>{\"name\": \"now\"}</tool_call>",
      "<TOOLCALL>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\", \"days\": 3}}, "
      "{\"name\": \"now\"}]</TOOLCALL>"};
  for (const std::string_view text : texts)
    for (size_t piece = 1; piece <= text.size(); ++piece) {
      const Answer answer = read(ToolFamily::kHermes, text, piece);
      EXPECT_EQ(answer.calls, kBoth) << piece;
      EXPECT_EQ(answer.content, "") << piece;
    }
}

TEST(ToolCallParser, WhatOnlyLooksLikeACallIsContent) {
  const std::pair<ToolFamily, std::string_view> cases[] = {
      {ToolFamily::kHermes, "2 < 3 and <tool_cal is no mark"},
      {ToolFamily::kHermes, "<tool_call>not JSON</tool_call>"},
      {ToolFamily::kHermes, "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>"},
      {ToolFamily::kHermes, "<tool_call>{\"name\": \"now\", \"argum"},
      {ToolFamily::kLlama, "{\"city\": \"Bonn\"}"},
      {ToolFamily::kLlama, "{\"name\": \"now\""},
      {ToolFamily::kMistralList, "[TOOL_CALLS]nothing of the kind"},
      {ToolFamily::kXml, "<function=now><parameter=x>1</function>"},
      {ToolFamily::kGlm, "<tool_call><b>now</b></tool_call>"},
  };
  for (const auto& [family, text] : cases)
    for (const size_t piece : {text.size(), size_t{1}}) {
      const Answer answer = read(family, text, piece);
      EXPECT_EQ(answer.content, text);
      EXPECT_EQ(answer.calls, "");
    }
}

TEST(ToolCallParser, WithoutToolsCallsAreText) {
  const Answer answer = read(ToolFamily::kHermes, kCases[0].text, 5, "", Json());
  EXPECT_EQ(answer.reasoning, "Hm.");
  EXPECT_THAT(answer.content, HasSubstr("<tool_call>"));
  EXPECT_EQ(answer.begun, 0u);
}

TEST(ToolCallParser, StringsStayStrings) {
  const Answer answer = read(
      ToolFamily::kXml,
      "<tool_call><function=weather><parameter=city>\n12\n</parameter></function></tool_call>", 4);
  EXPECT_EQ(answer.calls, R"(weather({"city": "12"}))");
}

TEST(ToolCallParser, IdsDiffer) {
  ToolCallParser parser(ToolSyntax(ToolFamily::kHermes), "prompt", kTools);
  std::vector<std::string> ids;
  for (const auto& part : parser.feed(kCases[0].text))
    if (part.kind == Kind::kCall) ids.push_back(part.id);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_EQ(ids[0].size(), 9u);
  EXPECT_EQ(parser.complete_calls(), 2u);
}

TEST(ToolSyntax, ChecksTools) {
  EXPECT_TRUE(check_tools(kTools, "tools"));
  for (const char* bad :
       {"{}", "[1]", "[{}]", R"([{"function": {}}])", R"([{"function": {"name": "a b"}}])",
        R"([{"function": {"name": ""}}])", R"([{"function": {"name": "a", "parameters": 3}}])"}) {
    const Status checked = check_tools(Json::parse(bad), "tools");
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(checked.error().message, HasSubstr("tools"));
  }
}

TEST(ToolSyntax, ReadsTheChoice) {
  using Mode = ToolChoice::Mode;
  EXPECT_EQ(parse_tool_choice(Json(), kTools)->mode, Mode::kAuto);
  EXPECT_EQ(parse_tool_choice("none", kTools)->mode, Mode::kNone);
  EXPECT_EQ(parse_tool_choice("required", kTools)->mode, Mode::kRequired);
  const Json named = {{"type", "function"}, {"function", {{"name", "now"}}}};
  EXPECT_EQ(parse_tool_choice(named, kTools)->name, "now");
  EXPECT_FALSE(parse_tool_choice(named, Json::array()));
  EXPECT_FALSE(parse_tool_choice("required", Json()));
  EXPECT_FALSE(parse_tool_choice("perhaps", kTools));
  EXPECT_FALSE(parse_tool_choice(Json{{"function", {{"name", "other"}}}}, kTools));
}

// What chance would not come upon: the ends of strings between tags.
bool close_string(tokenizer::Constraint& constraint, std::string_view closing, std::string* text) {
  const std::vector<uint32_t> tokens(closing.begin(), closing.end());
  if (constraint.count_allowed(tokens).value() != tokens.size()) return false;
  for (const uint32_t token : tokens) EXPECT_TRUE(constraint.take(token));
  *text += closing;
  return true;
}

// Draws at random under the mask until the text may end, and once more with a coin.
std::string draw(tokenizer::Constraint& constraint, std::string_view closing,
                 std::mt19937_64& random) {
  std::string text;
  while (text.size() < 4000) {
    if (random() % 4 == 0 && close_string(constraint, closing, &text)) continue;
    const auto mask = constraint.mask({}).value();
    std::vector<uint32_t> allowed;
    for (uint32_t token = 0; token < 256; ++token)
      if (token / 32 < mask.size() && (mask[token / 32] >> token % 32 & 1) != 0)
        allowed.push_back(token);
    const bool may_end = constraint.may_end().value();
    if (allowed.empty() || (may_end && random() % 4 == 0)) break;
    // Closing marks are likelier than chance has them, so that texts end.
    uint32_t token = allowed[random() % allowed.size()];
    for (const char end : {'"', '}', '<', '\n'})
      if (random() % 4 == 0 &&
          std::ranges::find(allowed, static_cast<uint32_t>(end)) != allowed.end())
        token = static_cast<uint32_t>(end);
    EXPECT_TRUE(constraint.take(token));
    text += static_cast<char>(token);
  }
  return text;
}

constexpr ToolFamily kForced[] = {ToolFamily::kHermes,      ToolFamily::kXml,
                                  ToolFamily::kGlm,         ToolFamily::kLlama,
                                  ToolFamily::kMistralList, ToolFamily::kMistralName,
                                  ToolFamily::kDeepseek,    ToolFamily::kDeepseekBare,
                                  ToolFamily::kKimi,        ToolFamily::kGeneric};

TEST(ToolSyntax, ForcedCallsAreReadBack) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  std::mt19937_64 random(test::seed());
  for (const ToolFamily family : kForced) {
    size_t complete = 0;
    std::string last;
    for (int round = 0; round < 8; ++round) {
      const ToolChoice choice{.mode = ToolChoice::Mode::kNamed, .name = "weather"};
      auto constraint = ToolSyntax(family).constraint(tokenizer, kTools, choice, "");
      ASSERT_TRUE(constraint) << tool_family_name(family) << ": " << constraint.error().message;
      const std::string text = draw(
          *constraint, family == ToolFamily::kXml ? "\n</parameter>\n" : "</arg_value>", random);
      last = text;
      if (!constraint->may_end().value()) continue;
      ++complete;
      const Answer answer = read(family, text, 3);
      EXPECT_THAT(answer.calls, HasSubstr("weather({")) << text;
      EXPECT_EQ(answer.begun, 1u) << text;
      EXPECT_EQ(answer.content, "") << text;
      if (answer.calls.empty()) continue;
      const Json arguments = Json::parse(answer.calls.substr(8, answer.calls.size() - 9));
      EXPECT_TRUE(arguments["city"].is_string()) << text;
      EXPECT_TRUE(arguments["days"].is_number_integer()) << text;
    }
    EXPECT_GT(complete, 0u) << tool_family_name(family)
                            << ::testing::PrintToString(last.substr(0, 300));
  }
}

TEST(ToolSyntax, ValuesBetweenTagsEndAtTheirTag) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  const std::pair<ToolFamily, std::string_view> kTexts[] = {
      {ToolFamily::kXml,
       "<tool_call>\n<function=weather>\n<parameter=city>\nB\n</parameter>\n<parameter=days>\n12"
       "\n</parameter>\n</function>\n</tool_call>"},
      {ToolFamily::kGlm,
       "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>B</arg_value>\n<arg_key>days"
       "</arg_key>\n<arg_value>12</arg_value>\n</tool_call>"},
  };
  const ToolChoice choice{.mode = ToolChoice::Mode::kNamed, .name = "weather"};
  for (const auto& [family, text] : kTexts) {
    auto constraint = ToolSyntax(family).constraint(tokenizer, kTools, choice, "").value();
    const std::vector<uint32_t> tokens(text.begin(), text.end());
    EXPECT_EQ(constraint.count_allowed(tokens).value(), tokens.size()) << text;
    const size_t tag = text.find("B") + 1 + (family == ToolFamily::kXml ? 14 : 12);
    for (size_t at = 0; at < tag; ++at) ASSERT_TRUE(constraint.take(tokens[at])) << at;
    const std::vector<uint32_t> other = {'x'};
    EXPECT_EQ(constraint.count_allowed(other).value(), 0u) << text.substr(0, tag);
  }
}

TEST(ToolSyntax, HarmonysForcedCallsUseItsTokens) {
  Json json = tokenizer::testing::byte_level();
  uint32_t next = 300;
  for (const char* mark : {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>"})
    if (json["added_tokens"][0]["content"] != mark)
      json["added_tokens"].push_back(tokenizer::testing::added_token(next++, mark));
  const auto tokenizer = tokenizer::testing::open(json).value();
  auto constraint =
      ToolSyntax(ToolFamily::kHarmony)
          .constraint(tokenizer, kTools, {.mode = ToolChoice::Mode::kNamed, .name = "now"}, "");
  ASSERT_TRUE(constraint) << constraint.error().message;
  const auto take = [&](std::string_view text) {
    const auto special = tokenizer.id(text);
    if (special) return constraint->take(*special).has_value();
    return std::ranges::all_of(
        text, [&](char c) { return constraint->take(static_cast<uint8_t>(c)).has_value(); });
  };
  for (const char* piece : {"<|channel|>", "analysis", "<|message|>", "Hm <", "<|end|>",
                            "<|start|>", "assistant", "<|channel|>", "commentary to=functions.now ",
                            "<|constrain|>", "json", "<|message|>", "{}"})
    ASSERT_TRUE(take(piece)) << piece;
  EXPECT_TRUE(constraint->may_end().value());
  const auto shown = ToolSyntax(ToolFamily::kHarmony).shown_tokens(tokenizer);
  EXPECT_EQ(shown.size(), 6u);
}

TEST(ToolSyntax, ForcedCallsFollowTheThinking) {
  const auto tokenizer = tokenizer::testing::open(tokenizer::testing::byte_level()).value();
  auto constraint =
      ToolSyntax(ToolFamily::kHermes)
          .constraint(tokenizer, kTools, {.mode = ToolChoice::Mode::kRequired, .name = {}},
                      "<|assistant|><think>\n")
          .value();
  constexpr std::string_view kText =
      "Hm.</think>\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  for (const char c : kText) ASSERT_TRUE(constraint.take(static_cast<uint8_t>(c))) << c;
  EXPECT_TRUE(constraint.may_end().value());
}

}  // namespace
}  // namespace sluice::chat
