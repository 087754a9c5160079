// Messages from OpenAI's JSON and back, and what templates are shown of them.
#include "chat/conversation.h"

#include <gmock/gmock.h>

namespace sluice::chat {
namespace {

using ::testing::HasSubstr;

Result<std::vector<Message>> parsed(std::string_view text) {
  const auto json = parse_json(text, "test");
  SLUICE_CHECK(json.has_value());
  return parse_messages(*json, "messages");
}

TEST(Conversation, ReadsWhatClientsSend) {
  const auto messages = parsed(R"([
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Oslo?"}]},
    {"role": "assistant", "content": null, "refusal": null, "reasoning_content": "Ask the tool.",
     "tool_calls": [{"id": "c1", "type": "function",
                     "function": {"name": "weather", "arguments": "{\"z\":1,\"a\":2}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "rain"}])");
  ASSERT_TRUE(messages) << messages.error().message;
  ASSERT_EQ(messages->size(), 4u);
  EXPECT_EQ((*messages)[1].content, "Weather in Oslo?");
  EXPECT_EQ((*messages)[2].reasoning, "Ask the tool.");
  EXPECT_EQ((*messages)[2].tool_calls,
            (std::vector<MessageCall>{{"c1", "weather", R"({"z":1,"a":2})"}}));
  EXPECT_EQ((*messages)[3].tool_call_id, "c1");
  const auto again = parse_messages(messages_json(*messages), "messages");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, *messages);
}

TEST(Conversation, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "messages should be a list, found object"},
      {R"(["x"])", "messages[0] should be an object, found string"},
      {R"([{"content": "x"}])", "messages[0].role should be a string"},
      {R"([{"role": "wizard", "content": "x"}])", "messages[0].role should be system"},
      {R"([{"role": "user"}])", "messages[0].content should be a string or a list"},
      {R"([{"role": "user", "content": 5}])", "messages[0].content should be a string or a list"},
      {R"([{"role": "user", "content": [5]}])", "messages[0].content[0] should be an object"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text"},
      {R"([{"role": "user", "content": [{"type": "image_url"}]}])", "is no text"},
      {R"([{"role": "assistant", "content": "", "tool_calls": {}}])",
       "tool_calls should be a list"},
      {R"([{"role": "assistant", "tool_calls": [{}]}])", "tool_calls[0].function should be"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}])",
       "tool_calls[0].function.name should be"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}])",
       "function.arguments should be the text of an object"},
      {R"([{"role": "tool", "content": "x", "tool_call_id": 1}])",
       "tool_call_id should be a string"},
      {R"([{"role": "user", "content": "x", "name": []}])", "name should be a string"},
  };
  for (const auto& [text, words] : cases) {
    const auto messages = parsed(text);
    ASSERT_FALSE(messages) << text;
    EXPECT_THAT(messages.error().message, HasSubstr(words));
  }
}

TEST(Conversation, KeepsArgumentsInOrderForTemplates) {
  Message call{.role = Role::kAssistant, .reasoning = "hm"};
  call.tool_calls = {{"1", "f", R"({"z": 1, "a": "\u00e9"})"}, {"", "g", "not json"}};
  const std::string text = template_messages({&call, 1});
  EXPECT_THAT(text, HasSubstr(R"("arguments":{"z": 1, "a": "\u00e9"})"));
  EXPECT_THAT(text, HasSubstr(R"("arguments":"not json")"));
  EXPECT_THAT(text, HasSubstr(R"("thinking":"hm")"));
  ASSERT_TRUE(parse_json(text, "test"));
}

TEST(Conversation, ShowsDevelopersAsTheSystem) {
  const Message message{.role = Role::kDeveloper, .content = "a \"quoted\"\n\x01 text"};
  const auto json = parse_json(template_messages({&message, 1}), "test");
  ASSERT_TRUE(json);
  EXPECT_EQ((*json)[0]["role"], "system");
  EXPECT_EQ((*json)[0]["content"], message.content);
}

}  // namespace
}  // namespace sluice::chat
