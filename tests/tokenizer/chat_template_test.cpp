// Templates as transformers renders them: each case here is something that templates do and
// template engines disagree on. Expected texts are Jinja's.
#include "tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"

namespace sluice::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<std::string> render(std::string_view source, const ChatInput& input) {
  SLUICE_ASSIGN(const ChatTemplate opened, ChatTemplate::open({.chat_template = source}));
  return opened.render(input);
}

// With one variable x, given as JSON.
std::string show(std::string_view source, const std::string& x = "null") {
  ChatInput input;
  input.messages = "[]";
  input.variables["x"] = x;
  const auto text = render(source, input);
  return text ? *text : "error: " + text.error().message;
}

ErrorCode refused(std::string_view source, const std::string& x = "null") {
  ChatInput input;
  input.variables["x"] = x;
  const auto text = render(source, input);
  return text ? ErrorCode::kCancelled : text.error().code;
}

TEST(ChatTemplateTest, MessagesAndPrompt) {
  const std::string source =
      "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  ChatInput input;
  input.messages =
      messages_json(std::vector<ChatMessage>{{"user", "a \"b\"\n"}, {"x", "\xc3\xa9"}});
  EXPECT_EQ(render(source, input).value(), "<user>a \"b\"\n\n<x>\xc3\xa9\n<assistant>");
  input.add_generation_prompt = false;
  EXPECT_EQ(render(source, input).value(), "<user>a \"b\"\n\n<x>\xc3\xa9\n");
}

TEST(ChatTemplateTest, WhiteSpaceAroundBlocks) {
  EXPECT_EQ(show("  {% if true %}\n  a\n  {% endif %}\nb\n"), "  a\nb");
  EXPECT_EQ(show("a  {%- if true -%}  b  {%- endif -%}  c\n\n"), "abc\n");
  EXPECT_EQ(show("{# note #}\nx\r\ny"), "x\ny");
  EXPECT_EQ(show("  {{ 1 }}\n {{- 2 }}"), "  12");
  EXPECT_EQ(show("{% raw %}{{ {% for %}{% endraw %}"), "{{ {% for %}");
}

TEST(ChatTemplateTest, Json) {
  const std::string tool =
      R"({"z": [1, 2.5, true, null], "a": "<é&'\">", "m": {}, "l": [], "big": 1e22, "one": 1.0})";
  EXPECT_EQ(
      show("{{ x | tojson }}", tool),
      R"({"z": [1, 2.5, true, null], "a": "<é&'\">", "m": {}, "l": [], "big": 1e+22, "one": 1.0})");
  EXPECT_EQ(show("{{ x | tojson(indent=2) }}", R"({"a": [1, {"b": 2}], "c": []})"),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": []\n}");
  EXPECT_EQ(
      show("{{ x | tojson(separators=(',', ':'), sort_keys=true) }}", R"({"b": 1, "a": [1, 2]})"),
      R"({"a":[1,2],"b":1})");
  EXPECT_EQ(show("{{ x | tojson(ensure_ascii=True) }}", R"("é😀")"), R"("\u00e9\ud83d\ude00")");
  EXPECT_EQ(refused("{{ y | tojson }}"), ErrorCode::kInvalidArgument);
}

TEST(ChatTemplateTest, PythonsWayToPrint) {
  EXPECT_EQ(show("{{ x }}", R"({"a": [true, null, "it's", 1.5]})"),
            R"({'a': [True, None, "it's", 1.5]})");
  EXPECT_EQ(show("{{ 1e16 }} {{ 0.00001 }} {{ 2.0 }} {{ true }} {{ none }} {{ nothing }}"),
            "1e+16 1e-05 2.0 True None ");
  EXPECT_EQ(show("{{ 7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 'a' ~ 1 ~ none }}"), "3 2 3.5 a1None");
}

TEST(ChatTemplateTest, PythonsMethods) {
  EXPECT_EQ(show("{{ 'a</t>b</t>c'.split('</t>')[-1] }}{{ ' x '.strip() }}{{ 'xxa'.lstrip('x') }}"),
            "cxa");
  EXPECT_EQ(show("{{ 'a b  c'.split() | tojson }}{{ 'a-b-c'.rsplit('-', 1) | tojson }}"
                 "{{ 'a-b-c'.split('-', maxsplit=1) | tojson }}"),
            R"(["a", "b", "c"]["a-b", "c"]["a", "b-c"])");
  EXPECT_EQ(show("{{ 'a=b=c'.partition('=') | list | tojson }}{{ 'ab'.removeprefix('a') }}"
                 "{{ 'ab'.startswith(('x', 'a')) }}{{ '7'.zfill(3) }}{{ 'a'.center(4) }}|"),
            R"(["a", "=", "b=c"]bTrue007 a  |)");
  EXPECT_EQ(show("{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}"
                 "{{ x.get('q', 'none') }}{{ x.keys() | list | join(',') }}",
                 R"({"b": 1, "a": 2})"),
            "b=1;a=2;noneb,a");
  EXPECT_EQ(show("{{ '%s-%02d' | format('a', 7) }}{{ '{} {x}'.format(1, x=2) }}"), "a-071 2");
}

TEST(ChatTemplateTest, PythonsPercent) {
  EXPECT_EQ(show("{{ '%s' % x }}{{ '%s-%02d' % (x, 7) }}{{ '%(a)s%%' % {'a': x} }}", R"("é")"),
            "éé-07é%");
  EXPECT_EQ(show("{{ '%r %.2f %5s|%-5s|' % (x, 2, 'a', 'b') }}", "\"it's\""),
            "\"it's\" 2.00     a|b    |");
  EXPECT_EQ(show("{{ 2 * x % 4 }}{{ -x % 3 }}{{ x % 4 == 3 }}{{ 'a' ~ x % 4 ~ 'b' }}", "7"),
            "22Truea3b");
  EXPECT_EQ(show("{% for i in range(5) if i % 2 %}{{ '%s,' % i }}{% endfor %}"), "1,3,");
  EXPECT_EQ(
      show("{{ '%s' % (1, 2) }}"),
      "error: the chat template: invalid operation: not all arguments converted during string "
      "formatting (in chat_template:1)");
  EXPECT_EQ(refused("{{ '%s %s' % x }}", "1"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("{{ x % 0 }}", "1"), ErrorCode::kInvalidArgument);
  // Widths are limited, and so is what is written.
  EXPECT_EQ(show("{{ ('%99999999999d' % x) | length }}", "1"), "65536");
}

// Jinja looks for methods first: a schema's "items" is one.
TEST(ChatTemplateTest, MethodsThatAreNotCalled) {
  const std::string schema = R"({"type": "array", "items": {"type": "string"}})";
  EXPECT_EQ(
      show("{{ x.items is mapping }}{{ x['items'] is mapping }}{{ x.items is callable }}", schema),
      "FalseTrueTrue");
  EXPECT_EQ(show("{{ x['items'].type }}{{ x.items() | length }}{{ x.type }}", schema),
            "string2array");
  EXPECT_EQ(show("{% set f = x.items %}{% for k, v in f() %}{{ k }},{% endfor %}", schema),
            "type,items,");
  EXPECT_EQ(refused("{% for k, v in x.items %}{{ k }}{% endfor %}", schema),
            ErrorCode::kInvalidArgument);
  // What would change the object is not handed out.
  EXPECT_EQ(show("{{ x.pop is defined }}{{ x.nope is defined }}{{ 'a'.upper is defined }}", schema),
            "FalseFalseTrue");
  EXPECT_EQ(show("{% set n = namespace(items=3) %}{% set n.items = n.items + 1 %}{{ n.items }}"),
            "4");
}

TEST(ChatTemplateTest, TestsOfTypes) {
  EXPECT_EQ(show("{{ x is mapping }}{{ x is sequence }}{{ x is iterable }}{{ x is string }}", "{}"),
            "TrueTrueTrueFalse");
  EXPECT_EQ(show("{{ x is sequence }}{{ x is iterable }}{{ x is none }}{{ x is defined }}"),
            "FalseFalseTrueTrue");
  EXPECT_EQ(show("{{ 'a' is sequence }}{{ q is defined }}{{ q is iterable }}{{ q.r is defined }}"),
            "error: the chat template: undefined value (in chat_template:1)");
  EXPECT_EQ(
      show("{{ true is number }}{{ true is integer }}{{ 1 is boolean }}{{ range is callable }}"),
      "TrueFalseFalseTrue");
}

TEST(ChatTemplateTest, LoopsAndScopes) {
  EXPECT_EQ(show("{% for i in range(4) if i != 2 %}{{ loop.index }}{{ loop.previtem }}"
                 "{{ loop.nextitem }}{% if loop.last %}.{% else %},{% endif %}{% endfor %}"),
            "11,203,31.");
  EXPECT_EQ(show("{% for i in x %}{% if i > 2 %}{% break %}{% endif %}{% if i == 1 %}{% continue %}"
                 "{% endif %}{{ i }}{% else %}none{% endfor %}",
                 "[0, 1, 2, 3]"),
            "02");
  EXPECT_EQ(show("{% set n = namespace(v=0) %}{% set s = 0 %}{% for i in [1, 2] %}"
                 "{% set n.v = n.v + i %}{% set s = s + i %}{% endfor %}{{ n.v }}{{ s }}"),
            "30");
  EXPECT_EQ(show("{% macro f(a, b='q') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=2) }}"),
            "1q12");
  EXPECT_EQ(
      show("{{ x[1:] | tojson }}{{ x[::-1] | tojson }}{{ x[-1] }}{{ (x + [9])[-2:] | tojson }}",
           "[1, 2, 3]"),
      "[2, 3][3, 2, 1]3[3, 9]");
  EXPECT_EQ(show("{% generation %}a{% set y = 1 %}{%- endgeneration %} {{ y is defined }}"),
            "a False");
}

TEST(ChatTemplateTest, Filters) {
  EXPECT_EQ(show("{{ 'a\n\nb' | indent(2) }}|{{ 'a\nb' | indent(1, true) }}|{{ 'a' | "
                 "indent(width=3, first=true) }}"),
            "a\n\n  b| a\n b|   a");
  EXPECT_EQ(
      show(
          "{{ q | default('d') }}{{ '' | default('e', true) }}{{ '' | default('f', boolean=true) }}"
          "{{ q | length }}{{ none | trim }}{{ 'xax' | trim('x') }}"),
      "def0Nonea");
  EXPECT_EQ(show("{{ x | selectattr('r', 'equalto', 'u') | list | length }}"
                 "{{ x | map(attribute='r') | join('+') }}{{ x | rejectattr('t', 'defined') | list "
                 "| length }}",
                 R"([{"r": "u"}, {"r": "a", "t": 1}])"),
            "1u+a1");
  EXPECT_EQ(
      show(
          "{% for k, v in x | dictsort %}{{ k }}{{ v }}{% endfor %}{{ x | items | list | tojson }}",
          R"({"b": 1, "A": 2})"),
      R"(A2b1[["b", 1], ["A", 2]])");
}

TEST(ChatTemplateTest, Clock) {
  ChatInput input;
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 1;
  now.tm_mday = 9;
  now.tm_hour = 15;
  now.tm_min = 4;
  now.tm_sec = 5;
  input.now = now;
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y %A %j %-d %e %I:%M:%S %p %y%%') }}", input).value(),
            "09 Feb 2024 Friday 040 9  9 03:04:05 PM 24%");
  input.now.reset();
  EXPECT_THAT(render("{{ strftime_now('%Y') }}", input).value(),
              ::testing::MatchesRegex("20[0-9]+"));
}

TEST(ChatTemplateTest, RefusalIsTheTemplatesOwnSentence) {
  const auto refusal = render("{{ raise_exception('No ' ~ 'system role') }}", {});
  ASSERT_FALSE(refusal);
  EXPECT_EQ(refusal.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal.error().message, "No system role");
  const auto inside =
      render("{% macro f() %}{{ raise_exception('in f') }}{% endmacro %}{{ f() }}", {});
  EXPECT_EQ(inside.error().message, "in f");
}

TEST(ChatTemplateTest, ErrorsByKind) {
  EXPECT_EQ(refused("{% for i in x %}{% endfor %}"), ErrorCode::kInvalidArgument);
  EXPECT_THAT(show("{% for i in x %}{% endfor %}"), HasSubstr("'NoneType' object is not iterable"));
  EXPECT_EQ(refused("{{ q.r.s }}"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("{{ 'a' + 1 }}"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("{{ x.append(1) }}", "[]"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("{{ x | no_such_filter }}"), ErrorCode::kUnsupported);
  EXPECT_EQ(refused("{{ no_such_function() }}"), ErrorCode::kUnsupported);
  EXPECT_EQ(refused("{% if x %}"), ErrorCode::kCorrupt);
  EXPECT_EQ(refused("{{ 'a }}"), ErrorCode::kCorrupt);
  EXPECT_EQ(refused("{% include 'secret' %}"), ErrorCode::kUnsupported);
  EXPECT_EQ(refused("a", "{"), ErrorCode::kInvalidArgument);
}

TEST(ChatTemplateTest, NamedTemplates) {
  const std::string config =
      dump_json({{"bos_token", {{"content", "<s>"}}},
                 {"additional_special_tokens", {"<x>"}},
                 {"chat_template",
                  {{{"name", "default"}, {"template", "plain {{ bos_token }}{{ eos_token }}"}},
                   {{"name", "tool_use"}, {"template", "tools {{ tools | length }}"}}}}});
  const auto several = ChatTemplate::open(
      {.tokenizer_config = config, .special_tokens_map = R"({"eos_token": "</s>"})"});
  ASSERT_TRUE(several) << several.error().message;
  EXPECT_THAT(several->names(), ElementsAre("default", "tool_use"));
  ChatInput input;
  EXPECT_EQ(several->render(input).value(), "plain <s></s>");
  input.tools = "[{}, {}]";
  EXPECT_EQ(several->render(input).value(), "tools 2");
  input.name = "default";
  EXPECT_EQ(several->render(input).value(), "plain <s></s>");
  input.name = "rag";
  EXPECT_THAT(several->render(input).error().message, HasSubstr("it has default, tool_use"));

  const auto file = ChatTemplate::open({.tokenizer_config = config,
                                        .chat_template = "file {{ additional_special_tokens[0] }}",
                                        .additional = {{"rag", "documents"}}});
  ASSERT_TRUE(file) << file.error().message;
  input.tools.clear();
  input.name.reset();
  EXPECT_EQ(file->render(input).value(), "file <x>");
  input.name = "rag";
  EXPECT_EQ(file->render(input).value(), "documents");
}

TEST(ChatTemplateTest, ModelsWithoutOne) {
  EXPECT_EQ(ChatTemplate::open({}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ChatTemplate::open({.tokenizer_config = "{}"}).error().code, ErrorCode::kNotFound);
  for (const char* config :
       {"[", R"({"chat_template": 7})", R"({"chat_template": [{"name": "a"}]})"})
    EXPECT_EQ(ChatTemplate::open({.tokenizer_config = config}).error().code, ErrorCode::kCorrupt)
        << config;
}

}  // namespace
}  // namespace sluice::tokenizer
