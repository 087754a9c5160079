// Constraints over small vocabularies: what is allowed, what is refused and why.
#include "tokenizer/constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tokenizer/tiny_tokenizers.h"

namespace sluice::tokenizer {
namespace {

using testing::byte_level;
using ::testing::HasSubstr;
using testing::open;
using testing::sentencepiece;

constexpr uint32_t kEnd = 262;  // <|end|> of byte_level()

bool allows(std::span<const uint32_t> mask, uint32_t token) {
  return token / 32 < mask.size() && (mask[token / 32] >> token % 32 & 1) != 0;
}

// Takes the text byte by byte; how many bytes were allowed.
size_t accepted(Constraint& constraint, std::string_view text) {
  size_t count = 0;
  for (const char c : text) {
    const auto mask = constraint.mask({}).value();
    const uint32_t token = static_cast<uint8_t>(c);
    if (!allows(mask, token)) return count;
    EXPECT_TRUE(constraint.take(token));
    ++count;
  }
  return count;
}

bool matches(const Result<Constraint>& constraint, std::string_view text) {
  auto copy = constraint.value().clone().value();
  return accepted(copy, text) == text.size() && copy.may_end().value();
}

TEST(Constraint, SchemaIsEnforced) {
  const auto tokenizer = open(byte_level()).value();
  const auto constraint = Constraint::json_schema(
      tokenizer,
      R"({"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"enum":
          ["x", null]}}, "required": ["a"], "additionalProperties": false})");
  ASSERT_TRUE(constraint) << constraint.error().message;
  EXPECT_TRUE(matches(constraint, R"({"a": 12, "b": null})"));
  EXPECT_TRUE(matches(constraint, "{\n  \"a\": 3\n}"));
  EXPECT_FALSE(matches(constraint, R"({"a": 2})"));
  EXPECT_FALSE(matches(constraint, R"({"b": "x"})"));
  EXPECT_FALSE(matches(constraint, R"({"a": 3, "c": 1})"));
  EXPECT_FALSE(matches(constraint, R"({"a": 3)"));
  EXPECT_FALSE(matches(constraint, "{  \"a\": 3}")) << "two spaces";
}

TEST(Constraint, KeysKeepTheSchemasOrder) {
  const auto tokenizer = open(byte_level()).value();
  const auto constraint = Constraint::json_schema(
      tokenizer, R"({"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}},
                     "required": ["z", "a"], "additionalProperties": false})");
  EXPECT_TRUE(matches(constraint, R"({"z": null, "a": null})"));
}

TEST(Constraint, EndIsAllowedWhereTheTextMayEnd) {
  const auto tokenizer = open(byte_level()).value();
  auto constraint = Constraint::regex(tokenizer, "ab?").value();
  const std::vector<uint32_t> ends = {kEnd, 300};
  EXPECT_FALSE(allows(constraint.mask(ends).value(), kEnd));
  ASSERT_TRUE(constraint.take('a'));
  EXPECT_TRUE(allows(constraint.mask(ends).value(), kEnd));
  EXPECT_TRUE(allows(constraint.mask(ends).value(), 'b'));
  EXPECT_TRUE(allows(constraint.mask(ends).value(), 300)) << "an id beyond the vocabulary";
  ASSERT_TRUE(constraint.take('b'));
  const auto last = constraint.mask(ends).value();
  for (uint32_t token = 0; token < 262; ++token) EXPECT_FALSE(allows(last, token)) << token;
  EXPECT_TRUE(allows(last, kEnd));
  EXPECT_EQ(constraint.take('b').error().code, ErrorCode::kInvalidArgument);
}

TEST(Constraint, SpecialTokensOnlyWhereNamed) {
  const auto tokenizer = open(byte_level()).value();
  auto any = Constraint::regex(tokenizer, "(?s:.*)").value();
  EXPECT_FALSE(allows(any.mask({}).value(), 261));
  EXPECT_TRUE(allows(any.mask({}).value(), '<'));
  auto named = Constraint::lark(tokenizer, R"(start: <|start|> "he" <[262]>)").value();
  EXPECT_TRUE(allows(named.mask({}).value(), 261));
  ASSERT_TRUE(named.take(261));
  const auto mask = named.mask({}).value();
  EXPECT_TRUE(allows(mask, 'h'));
  EXPECT_TRUE(allows(mask, 256)) << "the token \"he\"";
  EXPECT_FALSE(allows(mask, 258)) << "the token \"hell\"";
}

TEST(Constraint, BytesOfSentencepieceAreUsed) {
  const auto tokenizer = open(sentencepiece()).value();
  auto constraint = Constraint::regex(tokenizer, "h h\xc3\xa9").value();
  const std::vector<uint32_t> tokens = {tokenizer.id("h").value(),
                                        tokenizer.id("\xe2\x96\x81h").value(), 3 + 0xc3, 3 + 0xa9};
  for (const uint32_t token : tokens) {
    ASSERT_TRUE(allows(constraint.mask({}).value(), token)) << token;
    ASSERT_TRUE(constraint.take(token));
  }
  EXPECT_TRUE(constraint.may_end().value());
}

TEST(Constraint, ChoicesAndGuesses) {
  const auto tokenizer = open(byte_level()).value();
  const std::vector<std::string> texts = {"hello", "he\"\n"};
  auto constraint = Constraint::choices(tokenizer, texts).value();
  const std::vector<uint32_t> guess = {258, 'o', 'o'};
  EXPECT_EQ(constraint.count_allowed(guess).value(), 2u);
  EXPECT_EQ(constraint.count_allowed({}).value(), 0u);
  EXPECT_TRUE(matches(constraint.clone(), "hello"));
  EXPECT_TRUE(matches(constraint.clone(), "he\"\n"));
  EXPECT_FALSE(matches(constraint.clone(), "he"));
  EXPECT_EQ(Constraint::choices(tokenizer, {}).error().code, ErrorCode::kInvalidArgument);
}

TEST(Constraint, ClonesGoOnApart) {
  const auto tokenizer = open(byte_level()).value();
  auto first = Constraint::regex(tokenizer, "a(b|c)").value();
  ASSERT_TRUE(first.take('a'));
  auto second = first.clone().value();
  ASSERT_TRUE(first.take('b'));
  EXPECT_TRUE(allows(second.mask({}).value(), 'c'));
  EXPECT_FALSE(second.may_end().value());
}

struct Keyword {
  std::string_view schema;
  std::vector<std::string_view> allowed, forbidden;
};

// What docs/constraints.md lists, each keyword with what it lets through and what it stops.
TEST(Constraint, EveryKeywordHolds) {
  const auto tokenizer = open(byte_level()).value();
  const Keyword keywords[] = {
      {R"({"type": ["null", "boolean"]})", {"null", "true"}, {"1", "\"x\""}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties":
          {"type": "integer"}})",
       {R"({"a": null, "b": 1})", "{}", R"({"b": 1})"},
       {R"({"a": 1})", R"({"b": null})"}},
      {R"({"type": "object", "patternProperties": {"^n_": {"type": "integer"}},
          "additionalProperties": false})",
       {R"({"n_a": 1, "n_b": 2})"},
       {R"({"n_a": "x"})", R"({"m": 1})"}},
      {R"({"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": true})",
       {R"({"a": 1})", R"({"a": 1, "b": 2})"},
       {"{}", R"({"a": 1, "b": 2, "c": 3})"}},
      {R"({"type": "array", "items": {"type": "integer"}})", {"[]", "[1, 2]"}, {R"(["x"])"}},
      {R"({"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}})",
       {"[null, 1]"},
       {"[1]", "[null, null]"}},
      {R"({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}})",
       {"[1]", "[1, 2]"},
       {"[]", "[1, 2, 3]"}},
      {R"({"type": "string", "minLength": 1, "maxLength": 2})",
       {"\"a\"", "\"\u00e4\u00f6\""},
       {"\"\"", "\"abc\""}},
      {R"({"type": "string", "pattern": "^[a-c]+$"})", {"\"abc\""}, {"\"d\"", "\"\""}},
      {R"({"type": "string", "pattern": "b"})", {"\"abc\"", "\"b\""}, {"\"ac\""}},
      {R"({"type": "string", "format": "date"})", {"\"2026-11-29\""}, {"\"2026-13-01\"", "\"x\""}},
      {R"({"type": "string", "format": "time"})", {"\"23:59:58Z\""}, {"\"25:00:00Z\""}},
      {R"({"type": "string", "format": "date-time"})", {"\"2026-11-29T23:59:58Z\""}, {"\"2026\""}},
      {R"({"type": "string", "format": "duration"})", {"\"P1DT2H\""}, {"\"1 day\""}},
      {R"({"type": "string", "format": "uuid"})",
       {"\"01234567-89ab-cdef-0123-456789abcdef\""},
       {"\"01234567\""}},
      {R"({"type": "string", "format": "ipv4"})", {"\"127.0.0.1\""}, {"\"256.0.0.1\""}},
      {R"({"type": "string", "format": "ipv6"})", {"\"::1\"", "\"fe80::1\""}, {"\"1.2.3.4\""}},
      {R"({"type": "string", "format": "email"})", {"\"a@b.example\""}, {"\"a.example\""}},
      {R"({"type": "string", "format": "hostname"})", {"\"a.example\""}, {"\"-a\""}},
      {R"({"type": "string", "format": "uri"})", {"\"https://a.example/b?c#d\""}, {"\"a b\""}},
      {R"({"type": "number", "minimum": -1.5, "maximum": 2})",
       {"-1.5", "2", "0.25"},
       {"-2", "2.5"}},
      {R"({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 4})",
       {"2", "3"},
       {"1", "4", "2.5"}},
      {R"({"type": "integer", "multipleOf": 7})", {"0", "14", "-7"}, {"15"}},
      {R"({"type": "number", "multipleOf": 0.25})", {"0.75", "2"}, {"0.3"}},
      {R"({"enum": ["x", 1, null, [1], {"a": 2}]})",
       {"\"x\"", "1", "null", "[1]", R"({"a": 2})"},
       {"2", "\"y\""}},
      {R"({"const": {"a": [true]}})", {R"({"a": [true]})"}, {R"({"a": [false]})"}},
      {R"({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]})", {"null", "3"}, {"2"}},
      {R"({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]})", {"3", "5"}, {"2", "6"}},
      {R"({"oneOf": [{"type": "null"}, {"type": "string"}]})", {"null", "\"a\""}, {"1"}},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}})",
       {"[]", "[[], [[]]]"},
       {"1", "[1]"}},
      {R"({"$ref": "#/definitions/a", "definitions": {"a": {"type": "null"}}})", {"null"}, {"1"}},
      {R"({"title": "t", "description": "d", "default": 1, "examples": [2], "type": "null"})",
       {"null"},
       {"1"}},
  };
  for (const Keyword& each : keywords) {
    const auto constraint = Constraint::json_schema(tokenizer, each.schema);
    ASSERT_TRUE(constraint) << each.schema << constraint.error().message;
    for (const std::string_view text : each.allowed)
      EXPECT_TRUE(matches(constraint, text)) << each.schema << " " << text;
    for (const std::string_view text : each.forbidden)
      EXPECT_FALSE(matches(constraint, text)) << each.schema << " " << text;
  }
}

TEST(Constraint, WhatRestrictsAndCannotBeEnforcedIsRefusedByName) {
  const auto tokenizer = open(byte_level()).value();
  for (const std::string_view keyword :
       {"not", "if", "contains", "propertyNames", "unevaluatedProperties", "dependentSchemas"}) {
    const auto constraint =
        Constraint::json_schema(tokenizer, fmt::format(R"({{"{}": {{}}}})", keyword));
    ASSERT_FALSE(constraint) << keyword;
    EXPECT_EQ(constraint.error().code, ErrorCode::kUnsupported) << keyword;
    EXPECT_THAT(constraint.error().message, HasSubstr(std::string(keyword)));
  }
  const auto format = Constraint::json_schema(tokenizer, R"({"type": "string", "format": "iri"})");
  ASSERT_FALSE(format);
  EXPECT_THAT(format.error().message, HasSubstr("iri"));
  const auto remote = Constraint::json_schema(tokenizer, R"({"$ref": "http://x.example/a.json"})");
  ASSERT_FALSE(remote);
}

struct Refused {
  std::string_view schema;
  ErrorCode code;
  std::string_view words;
};

TEST(Constraint, RefusesWithAReason) {
  const auto tokenizer = open(byte_level()).value();
  const Refused cases[] = {
      {"{", ErrorCode::kInvalidArgument, "EOF"},
      {"[]", ErrorCode::kInvalidArgument, "should be a JSON object"},
      {R"({"type": "strange"})", ErrorCode::kInvalidArgument, ""},
      {R"({"type": "string", "minLength": 5, "maxLength": 3})", ErrorCode::kInvalidArgument,
       "nothing satisfies it"},
      {R"({"type": "integer", "minimum": 5, "maximum": 3})", ErrorCode::kInvalidArgument,
       "nothing satisfies it"},
      {R"({"allOf": [{"type": "string"}, {"type": "null"}]})", ErrorCode::kInvalidArgument,
       "nothing satisfies it"},
      {R"({"type": "array", "uniqueItems": true})", ErrorCode::kUnsupported, "uniqueItems"},
      {R"({"not": {"type": "string"}})", ErrorCode::kUnsupported, "not"},
      // Settings of the parser's are ours to make.
      {R"({"x-guidance": {"lenient": true}, "if": {"type": "string"}})", ErrorCode::kUnsupported,
       "if"},
  };
  for (const Refused& each : cases) {
    const auto constraint = Constraint::json_schema(tokenizer, each.schema);
    ASSERT_FALSE(constraint) << each.schema;
    EXPECT_EQ(constraint.error().code, each.code) << each.schema << constraint.error().message;
    EXPECT_THAT(constraint.error().message, HasSubstr("the JSON schema: "));
    EXPECT_THAT(constraint.error().message, HasSubstr(std::string(each.words)));
    EXPECT_EQ(constraint.error().message.find('\n'), std::string::npos);
  }
  EXPECT_EQ(Constraint::regex(tokenizer, "(").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Constraint::lark(tokenizer, "begin: \"a\"").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Constraint::lark(tokenizer, "start: <|none|>").error().code,
            ErrorCode::kInvalidArgument);
}

TEST(Constraint, HostileTextsEnd) {
  const auto tokenizer = open(byte_level()).value();
  const std::string deep(100'000, '[');
  EXPECT_FALSE(Constraint::json_schema(tokenizer, deep));
  auto large = Constraint::regex(tokenizer, "((((a{1000}){1000}){1000}){1000}){1000}");
  if (large) {
    EXPECT_TRUE(large->mask({}));
  }
  EXPECT_FALSE(Constraint::regex(tokenizer, std::string(100'000, '(')));
  EXPECT_FALSE(Constraint::json_schema(tokenizer, std::string(5 << 20, ' ')));
  // Endless references end in a schema that nothing satisfies, or in a refusal.
  EXPECT_FALSE(Constraint::json_schema(tokenizer, R"({"$ref": "#"})"));
}

}  // namespace
}  // namespace sluice::tokenizer
