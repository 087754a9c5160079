// An agent's turn as a prompt and what its answer is held to.
#include "chat/agent_turn.h"

#include <gtest/gtest.h>

#include "tokenizer/tiny_tokenizers.h"

namespace sluice::chat {
namespace {

constexpr std::string_view kTemplate =
    "{% if tools %}{{ tools | tojson }} Call as <tool_call>.{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

class AgentTurnTest : public testing::Test {
 protected:
  AgentTurnTest() {
    model_.chat_template.emplace(
        tokenizer::ChatTemplate::open({.chat_template = kTemplate}).value());
    turn_.messages = OrderedJson::parse(R"([{"role": "user", "content": "hello"}])");
    turn_.tools = OrderedJson::parse(R"([{"type": "function", "function": {"name": "edit",
      "parameters": {"type": "object", "properties": {"path": {"type": "string"},
        "new": {"type": "string"}}, "required": ["path", "new"],
        "additionalProperties": false}}}])");
  }

  TurnPrompt render() { return TurnRenderer(model_, {}).render(turn_).value(); }

  // How much of the text a model may write that is held to this, byte by byte.
  static size_t written(TurnPrompt& prompt, std::string_view text) {
    for (size_t at = 0; at < text.size(); ++at) {
      const auto token = static_cast<uint8_t>(text[at]);
      const auto mask = prompt.constraint->mask({}).value();
      if ((mask[token / 32] >> token % 32 & 1) == 0) return at;
      EXPECT_TRUE(prompt.constraint->take(token));
    }
    return text.size();
  }

  ChatModel model_{nullptr,
                   tokenizer::testing::open(tokenizer::testing::byte_level()).value(),
                   std::nullopt,
                   {},
                   {}};
  AgentTurn turn_;
};

TEST_F(AgentTurnTest, ABegunCallIsHeldToItsTool) {
  constexpr std::string_view kGood =
      "I look.\n<tool_call>\n{\"name\": \"edit\", \"arguments\": {\"path\": \"a\", \"new\": "
      "\"b\"}}\n</tool_call>";
  TurnPrompt prompt = render();
  ASSERT_TRUE(prompt.constraint);
  EXPECT_NE(prompt.text.find("\"path\""), std::string::npos);
  EXPECT_EQ(written(prompt, kGood), kGood.size());
  for (const auto& [text, wrong] : {
           std::pair<std::string, std::string>{"<tool_call>\n{\"name\": \"", "erase"},
           {"<tool_call>\n{\"name\": \"edit\", \"arguments\": {\"", "new"},
           {"<tool_call>\n{\"name\": \"edit\", \"arguments\": {\"path\": ", "7"},
           {"<tool_call>\n{\"name\": \"edit\", \"arguments\": {\"path\": \"a\", \"new\": \"b\"",
            ", \"mode\": 1"},
       }) {
    TurnPrompt again = render();
    const size_t end = written(again, text + wrong);
    EXPECT_GE(end, text.size()) << text;
    EXPECT_LT(end, text.size() + wrong.size()) << text << wrong;
  }
}

TEST_F(AgentTurnTest, AWordOrANamedToolIsAllThereIs) {
  turn_.words = {"answer", "edit"};
  TurnPrompt word = render();
  EXPECT_EQ(written(word, "answers"), 6u);
  turn_.words.clear();
  turn_.forced_tool = "edit";
  TurnPrompt forced = render();
  EXPECT_EQ(written(forced, "I"), 0u);
  EXPECT_EQ(written(forced, "<tool_call>"), 11u);
}

TEST_F(AgentTurnTest, WithoutToolsNothingIsHeld) {
  turn_.tools = nullptr;
  EXPECT_FALSE(render().constraint);
}

}  // namespace
}  // namespace sluice::chat
