// Bodies of OpenAI's API: what is taken, what is refused, and in which words.
#include "server/requests.h"

#include <gtest/gtest.h>

namespace sluice::server {
namespace {

RequestDefaults defaults() {
  RequestDefaults defaults;
  defaults.vocabulary = 100;
  return defaults;
}

Result<ChatRequest> parse(const std::string& fields) {
  const std::string text = R"({"messages": [{"role": "user", "content": "Hi"}])" +
                           (fields.empty() ? "" : ", " + fields) + "}";
  const auto json = parse_ordered_json(text, "test");
  SLUICE_CHECK(json.has_value());
  return parse_chat_request(*json, defaults());
}

TEST(Requests, SchemasAndToolsKeepTheirOrder) {
  const auto request = parse(
      R"("response_format": {"type": "json_schema", "json_schema": {"schema":
           {"type": "object", "properties": {"z": {}, "a": {}}}}},
         "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}],
         "chat_template_kwargs": {"x": {"z": 1, "a": 2}})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->form->text, R"({"type":"object","properties":{"z":{},"a":{}}})");
  EXPECT_EQ(dump_json(request->tools),
            R"([{"type":"function","function":{"name":"f","parameters":{"z":1,"a":2}}}])");
  EXPECT_EQ(request->variables.at("x"), R"({"z":1,"a":2})");
}

TEST(Requests, ReadsEveryField) {
  const auto request = parse(
      R"("model": "m", "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": -1,
         "presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {"7": -100, "8": 1.5},
         "stop": ["a", "b"], "n": 3, "stream": true, "stream_options": {"include_usage": true},
         "logprobs": true, "top_logprobs": 5, "max_completion_tokens": 12, "tools": [],
         "reasoning_effort": "none", "chat_template_kwargs": {"x": [1]}, "unknown": {}, "user": "u")");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  const runtime::SamplerOptions& sampling = request->job.sampling;
  EXPECT_EQ(request->model, "m");
  EXPECT_FLOAT_EQ(sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 40u);
  EXPECT_EQ(sampling.seed, ~uint64_t{0});
  ASSERT_EQ(sampling.logit_bias.size(), 2u);
  EXPECT_EQ(sampling.logit_bias[0].token, 7u);
  EXPECT_TRUE(std::isinf(sampling.logit_bias[0].bias));
  EXPECT_EQ(request->job.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request->choices, 3u);
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  EXPECT_EQ(request->job.logprobs, 5u);
  EXPECT_EQ(request->job.tokens_max, 12u);
  EXPECT_EQ(request->job.client, "u");
  EXPECT_EQ(request->variables.at("enable_thinking"), "false");
  EXPECT_EQ(request->variables.at("x"), "[1]");
}

TEST(Requests, RefusesWhatIsOutOfRangeByName) {
  const std::pair<std::string, std::string> cases[] = {
      {R"("temperature": -0.1)", "temperature"},
      {R"("temperature": "1")", "temperature"},
      {R"("temperature": 101)", "temperature"},
      {R"("top_p": 1.1)", "top_p"},
      {R"("top_k": -1)", "top_k"},
      {R"("top_k": 1.5)", "top_k"},
      {R"("min_p": 2)", "min_p"},
      {R"("n": 0)", "n"},
      {R"("n": 17)", "n"},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": 1e300)", "max_tokens"},
      {R"("max_tokens": 99999999999)", "max_tokens"},
      {R"("seed": 1.5)", "seed"},
      {R"("presence_penalty": 3)", "presence_penalty"},
      {R"("logit_bias": {"100": 1})", "logit_bias"},
      {R"("logit_bias": {"-1": 1})", "logit_bias"},
      {R"("logit_bias": {"1": 101})", "logit_bias"},
      {R"("logit_bias": [1])", "logit_bias"},
      {R"("stop": [""])", "stop"},
      {R"("stop": 5)", "stop"},
      {R"("stop": ["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])", "stop"},
      {R"("stream": 1)", "stream"},
      {R"("stream_options": 1)", "stream_options"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("top_logprobs": 2)", "top_logprobs"},
      {R"("model": 5)", "model"},
      {R"("chat_template_kwargs": {"messages": []})", "chat_template_kwargs"},
      {R"("response_format": "json")", "response_format"},
  };
  for (const auto& [fields, name] : cases) {
    const auto request = parse(fields);
    ASSERT_FALSE(request.has_value()) << fields;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalidArgument) << fields;
    EXPECT_TRUE(request.error().message.starts_with(name)) << request.error().message;
  }
}

TEST(Requests, RefusesWhatIsNotOffered) {
  for (const std::string_view fields : {R"("functions": [1])", R"("audio": {})"}) {
    const auto request = parse(std::string(fields));
    ASSERT_FALSE(request.has_value());
    EXPECT_EQ(request.error().code, ErrorCode::kUnsupported);
  }
}

TEST(Requests, RefusesMessagesThatAreNone) {
  for (const std::string_view text :
       {R"({})", R"([])", R"({"messages": []})", R"({"messages": "hi"})", R"({"messages": [1]})",
        R"({"messages": [{"role": "king", "content": "hi"}]})",
        R"({"messages": [{"role": "user", "content": 5}]})"}) {
    const auto request = parse_chat_request(*parse_json(text, "test"), defaults());
    ASSERT_FALSE(request.has_value()) << text;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Requests, ReadsPromptsOfAllKinds) {
  const auto count = [](std::string_view prompt) -> size_t {
    const auto json = parse_json(fmt::format(R"({{"prompt": {}}})", prompt), "test");
    const auto request = parse_completion_request(*json, defaults());
    return request ? request->prompts.size() : 0;
  };
  EXPECT_EQ(count(R"("a")"), 1u);
  EXPECT_EQ(count(R"(["a", "b"])"), 2u);
  EXPECT_EQ(count(R"([1, 2, 3])"), 1u);
  EXPECT_EQ(count(R"([[1, 2], [3]])"), 2u);
  for (const std::string_view wrong :
       {"[]", "5", "null", "[[]]", "[[[1]]]", "[100]", "[-1]", R"([1, "a"])", R"(["a", 1])", "{}"})
    EXPECT_EQ(count(wrong), 0u) << wrong;
}

TEST(Requests, Tokens) {
  EXPECT_TRUE(parse_tokenize_request(*parse_json(R"({"content": "x"})", "test")).has_value());
  EXPECT_FALSE(parse_tokenize_request(*parse_json(R"({"content": 1})", "test")).has_value());
  EXPECT_FALSE(parse_tokenize_request(*parse_json("[]", "test")).has_value());
  EXPECT_EQ(parse_detokenize_request(*parse_json(R"({"tokens": [1, 99]})", "test"), 100)->size(),
            2u);
  EXPECT_FALSE(parse_detokenize_request(*parse_json(R"({"tokens": [100]})", "test"), 100));
  EXPECT_FALSE(parse_detokenize_request(*parse_json(R"({"tokens": 1})", "test"), 100));
}

}  // namespace
}  // namespace sluice::server
