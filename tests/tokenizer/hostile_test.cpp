// Files made to harm: what no real model has ends in an error, in bounded time and memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tokenizer/chat_template.h"
#include "tokenizer/tiny_tokenizers.h"

namespace sluice::tokenizer {
namespace {

using ::testing::HasSubstr;

Result<std::string> render(const std::string& source, const std::string& messages = "[]") {
  SLUICE_ASSIGN(const ChatTemplate opened, ChatTemplate::open({.chat_template = source}));
  return opened.render({.messages = messages});
}

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

void expect_limit(const std::string& source, const char* reason) {
  const auto text = render(source);
  ASSERT_FALSE(text) << source.substr(0, 80);
  EXPECT_EQ(text.error().code, ErrorCode::kUnsupported) << text.error().message;
  EXPECT_THAT(text.error().message, HasSubstr(reason));
}

TEST(HostileTest, TruncatedTokenizers) {
  const std::string text = dump_json(testing::sentencepiece());
  for (size_t size = 0; size < text.size(); size += 97) {
    const auto opened = Tokenizer::open({.tokenizer = std::string_view(text).substr(0, size)});
    ASSERT_FALSE(opened) << size;
    EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt) << opened.error().message;
  }
}

TEST(HostileTest, TokenizersThatAreNone) {
  for (const std::string& text :
       {std::string("[]"), std::string("{}"), std::string("null"), std::string("\xff\xfe"),
        std::string(R"({"version": "2.0"})"), repeated("[", 100'000), repeated("{\"a\":", 100'000),
        R"({"version":"1.0","normalizer":)" +
            repeated(R"({"type":"Sequence","normalizers":[)", 5000)}) {
    const auto opened = Tokenizer::open({.tokenizer = text});
    ASSERT_FALSE(opened) << text.substr(0, 60);
    EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt) << opened.error().message;
  }
}

// Each step makes the text longer: a few hundred bytes of JSON ask for more memory than there is.
TEST(HostileTest, NormalizerThatGrowsForever) {
  Json json = testing::byte_level();
  const Json more = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(64, 'a')}};
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 60; ++i) json["normalizer"]["normalizers"].push_back(more);
  const auto tokenizer = testing::open(json);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->encode("b", false).value().size(), 1u);
  for (int i = 0; i < 2; ++i) {  // the second time at once
    const auto ids = tokenizer->encode("a", false);
    ASSERT_FALSE(ids);
    EXPECT_EQ(ids.error().code, ErrorCode::kUnsupported) << ids.error().message;
  }
}

TEST(HostileTest, DecoderThatDoublesForever) {
  Json json = testing::byte_level();
  const Json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  json["decoder"] = {{"type", "Sequence"}, {"decoders", Json::array()}};
  for (int i = 0; i < 60; ++i) json["decoder"]["decoders"].push_back(twice);
  const auto tokenizer = testing::open(json);
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
}

TEST(HostileTest, TextThatIsNoUtf8) {
  const auto tokenizer = testing::open(testing::byte_level()).value();
  EXPECT_EQ(tokenizer.encode("a\xff", false).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ChatTemplate::open({.chat_template = "\xff"}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(render("a", "[\"\xff\"]").error().code, ErrorCode::kInvalidArgument);
}

TEST(HostileTest, EndlessLoops) {
  const std::string loop = "{% for i in range(100000) %}";
  // By steps, or on a very busy machine by time.
  expect_limit(repeated(loop, 4) + repeated("{% endfor %}", 4), "takes");
  EXPECT_FALSE(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"));
  EXPECT_FALSE(render("{{ range(10000000000) | list | length }}"));
}

TEST(HostileTest, EnormousOutput) {
  const std::string loop = "{% for i in range(10000) %}";
  expect_limit(loop + "{{ 'x' * 1000000 }}{% endfor %}", "writes more");
  const auto fits = render("{{ 'x' * 1000000 }}");
  ASSERT_TRUE(fits) << fits.error().message;
  EXPECT_EQ(fits->size(), 1'000'000u);
}

TEST(HostileTest, MemoryWithoutOutput) {
  expect_limit(
      "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}"
      "{% endfor %}",
      "memory");
  expect_limit("{{ ('a' * 30000) | replace('a', 'b' * 90000) | length }}", "memory");
}

// A template that went over its memory may not take it a second time.
TEST(HostileTest, SpentTemplateIsRefused) {
  const auto opened = ChatTemplate::open(
      {.chat_template =
           "{% if messages %}{{ ('a' * 30000) | replace('a', 'b' * 90000) }}{% endif %}"});
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->render({.messages = "[]"}).value(), "");
  EXPECT_THAT(opened->render({.messages = "[1]"}).error().message, HasSubstr("memory"));
  EXPECT_THAT(opened->render({.messages = "[]"}).error().message, HasSubstr("before"));
}

TEST(HostileTest, DeepNesting) {
  EXPECT_FALSE(render(repeated("{{ (", 1) + repeated("(", 50'000)));
  EXPECT_FALSE(render("{{ " + repeated("[", 50'000) + repeated("]", 50'000) + " }}"));
  EXPECT_FALSE(render(repeated("{% if true %}", 50'000)));
  EXPECT_FALSE(render("a", repeated("[", 100'000)));
  // Values nested by the template itself are dropped, printed and compared recursively.
  const std::string nest =
      "{% set n = namespace(v=[]) %}{% for i in range(100000) %}{% set n.v = [n.v] %}{% endfor %}";
  EXPECT_EQ(render(nest + "done").value(), "done");
  EXPECT_FALSE(render(nest + "{{ n.v | tojson }}"));
  // As deep as the memory allows, and deeper.
  for (const int rounds : {8'000, 100'000}) {
    const std::string deep =
        fmt::format("{{% set n = namespace(v=[]) %}}{{% for i in range({}) %}}", rounds) +
        "{% set n.v = " + repeated("[", 100) + "n.v" + repeated("]", 100) + " %}{% endfor %}";
    static_cast<void>(render(deep));
    static_cast<void>(render(deep + "{{ n.v }}"));
    static_cast<void>(render(deep + "{{ n.v == [n.v] }}"));
  }
}

TEST(HostileTest, PanicsBecomeErrors) {
  // minijinja 3.0.5 reads past the end here.
  static_cast<void>(render("{{ [][::-1] }}{{ ''[::-1] }}{{ [1, 2][0:9:-1] }}"));
  static_cast<void>(render("{% for i in [1] %}{{ loop.cycle() }}{% endfor %}"));
}

TEST(HostileTest, LargeFiles) {
  expect_limit(repeated("x", (1 << 20) + 1), "more than");
  const auto fits = render(repeated("x", 1 << 20));
  ASSERT_TRUE(fits) << fits.error().message;
}

TEST(HostileTest, BrokenTemplates) {
  const std::string whole =
      "{% macro f(a, b='x') %}{{ a ~ b }}{% endmacro %}{% for m in messages if m.role == 'user' %}"
      "{%- if m.content is string -%}{{ f(m.content | trim, b=\"{{\") }}{% endif %}{% endfor %}"
      "{# note #}{% raw %}{{{% endraw %}{% generation %}{{ {'a': {'b': 1}}.a.b }}{% endgeneration "
      "%}";
  const std::string messages = R"([{"role": "user", "content": "\u00e9"}])";
  EXPECT_EQ(render(whole, messages).value(), "\xc3\xa9{{{{1");
  for (size_t size = 0; size < whole.size(); ++size) {
    static_cast<void>(render(whole.substr(0, size), messages));
    static_cast<void>(render(whole.substr(size), messages));
  }
}

}  // namespace
}  // namespace sluice::tokenizer
