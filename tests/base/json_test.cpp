// The JSON facade: strict where foreign text comes in, typed access that names the key, never an
// exception.
#include "base/json.h"

#include <gmock/gmock.h>

#include "base/ordered_json.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ParseJson, WellFormedTextRoundTrips) {
  for (const std::string_view text :
       {"null", "true", "0", "-1", "18446744073709551615", "-9223372036854775808", "1.5", "1e300",
        "\"\"", "\"\xc3\xa9\\u00e9\\n\"", "[]", "{}", "[1,[2,{\"a\":[]}],\"x\"]",
        "{\"b\":{\"c\":[1,2]},\"a\":null}"}) {
    const auto json = parse_json(text, "t");
    ASSERT_TRUE(json) << text << ": " << json.error().message;
    const auto again = parse_json(dump_json(*json), "t");
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, *json);
  }
}

TEST(ParseJson, DoublesSurviveUnchanged) {
  for (const double value : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.123456789}) {
    const auto json = parse_json(dump_json(Json(value)), "t");
    ASSERT_TRUE(json);
    EXPECT_EQ(json->get<double>(), value);
  }
}

TEST(ParseJson, Refused) {
  const std::string nul("{}\0", 3), hidden("{}\0{\"evil\":1}", 14), inside("[\"a\0b\"]", 7);
  for (const std::string& text : {std::string(),
                                  std::string(" "),
                                  std::string("{"),
                                  std::string("[1,]"),
                                  std::string("{\"a\":1,}"),
                                  std::string("{'a':1}"),
                                  std::string("[1] [2]"),
                                  std::string("{}x"),
                                  std::string("nul"),
                                  std::string("NaN"),
                                  std::string("Infinity"),
                                  std::string("01"),
                                  std::string("+1"),
                                  std::string("1."),
                                  std::string(".5"),
                                  std::string("\"\\ud800\""),
                                  std::string("\"\n\""),
                                  std::string("\"\\x41\""),
                                  std::string("\"\xff\""),
                                  std::string("\"\xc0\xaf\""),
                                  std::string("\"\xed\xa0\x80\""),
                                  std::string("\"\xf5\x80\x80\x80\""),
                                  std::string("// comment\n{}"),
                                  nul,
                                  hidden,
                                  inside}) {
    const auto json = parse_json(text, "config.json");
    ASSERT_FALSE(json) << text;
    EXPECT_EQ(json.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(json.error().message, ::testing::StartsWith("config.json: "));
  }
}

TEST(ParseJson, NumbersOutsideADouble) {
  for (const std::string_view text : {"1e400", "-1e400", "[1, 1e999]", "1e99999999999999999999"})
    EXPECT_FALSE(parse_json(text, "t")) << text;
  EXPECT_TRUE(parse_json("1e-400", "t")) << "underflow is zero";
  // Beyond 64 bits an integer becomes a double, which integer access refuses.
  const auto large = parse_json("{\"n\": 18446744073709551616}", "t");
  ASSERT_TRUE(large);
  EXPECT_FALSE(json_int(*large, "n", 0, INT64_MAX, "t"));
}

TEST(ParseJson, DuplicateKeysAtAnyDepth) {
  for (const std::string_view text :
       {"{\"a\":1,\"a\":1}", "{\"x\":[{\"a\":1,\"b\":2,\"a\":3}]}", "{\"a\":1,\"\\u0061\":2}"})
    EXPECT_THAT(parse_json(text, "t").error().message, HasSubstr("duplicate key \"a\""));
  EXPECT_TRUE(parse_json("{\"a\":{\"a\":1},\"b\":{\"a\":1}}", "t"));
}

TEST(ParseOrderedJson, KeysStayWhereTheyStand) {
  const std::string text = R"({"z":{"b":[{"y":1,"a":2}],"a":null},"a":1,"m":[]})";
  const auto json = parse_ordered_json(text, "t");
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(dump_json(*json), text);
  EXPECT_EQ(*json_find(*json, "a"), 1);
  EXPECT_EQ(json_find(*json, "nothing"), nullptr);
  EXPECT_EQ(json_find(json->at("z"), "a"), nullptr) << "null";
  EXPECT_EQ(dump_json(Json(*json)), R"({"a":1,"m":[],"z":{"a":null,"b":[{"a":2,"y":1}]}})");
}

TEST(ParseOrderedJson, RefusesWhatParseJsonRefuses) {
  for (const std::string& text :
       {std::string("{\"a\":1,\"b\":2,\"a\":1}"), std::string("[{\"a\":1,\"\\u0061\":2}]"),
        std::string("{"), std::string("{}x"), std::string("1e400"), nested(kJsonDepthMax + 1)}) {
    const auto json = parse_ordered_json(text, "t");
    ASSERT_FALSE(json) << text;
    EXPECT_EQ(json.error().message, parse_json(text, "t").error().message);
  }
  // A large object takes no more than its sorting.
  std::string large = "{";
  for (int i = 0; i < 200'000; ++i) large += fmt::format("\"k{}\":0,", i);
  EXPECT_TRUE(parse_ordered_json(large + "\"x\":0}", "t"));
}

TEST(ParseJson, DepthIsBounded) {
  EXPECT_TRUE(parse_json(nested(kJsonDepthMax), "t"));
  EXPECT_THAT(parse_json(nested(kJsonDepthMax + 1), "t").error().message, HasSubstr("deeper"));
  EXPECT_FALSE(parse_json(std::string(10'000'000, '['), "t"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(parse_json(objects, "t"));
}

TEST(ParseJson, EveryTruncationIsRefused) {
  const std::string text = "{\"a\":[1,-2.5e3,\"x\\u00e9\xc3\xa9\"],\"b\":{\"c\":null,\"d\":true}}";
  for (size_t bytes = 0; bytes < text.size(); ++bytes)
    EXPECT_FALSE(parse_json(text.substr(0, bytes), "t")) << bytes;
  EXPECT_TRUE(parse_json(text, "t"));
}

// Counts events and stops at a given one.
class Counter : public JsonSax {
 public:
  explicit Counter(int stop_at) : left_(stop_at) {}
  bool null() override { return next(); }
  bool boolean(bool) override { return next(); }
  bool number_integer(number_integer_t) override { return next(); }
  bool number_unsigned(number_unsigned_t) override { return next(); }
  bool number_float(number_float_t, const string_t&) override { return next(); }
  bool string(string_t&) override { return next(); }
  bool binary(binary_t&) override { return next(); }
  bool start_object(size_t) override { return next(); }
  bool key(string_t&) override { return next(); }
  bool end_object() override { return next(); }
  bool start_array(size_t) override { return next(); }
  bool end_array() override { return next(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }
  int events = 0;

 private:
  bool next() {
    ++events;
    return --left_ != 0;
  }
  int left_;
};

TEST(ParseJsonEvents, AHandlerStopsAtAnyEvent) {
  const std::string_view text = "{\"a\":[1,-2,3.5,\"s\",true,null]}";
  Counter all(-1);
  ASSERT_TRUE(parse_json_events(text, "t", all));
  EXPECT_EQ(all.events, 11);
  for (int stop = 1; stop <= all.events; ++stop) {
    Counter counter(stop);
    const Status status = parse_json_events(text, "t", counter);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
    EXPECT_EQ(counter.events, stop);
  }
}

class JsonAccess : public ::testing::Test {
 protected:
  const Json object_ = {{"n", 5},          {"big", UINT64_MAX}, {"neg", -3},
                        {"x", 0.5},        {"s", "text"},       {"b", true},
                        {"null", nullptr}, {"o", {{"a", 1}}},   {"l", {1, 2}}};
};

TEST_F(JsonAccess, RightTypes) {
  EXPECT_EQ(json_int(object_, "n", 5, 5, "t"), 5);
  EXPECT_EQ(json_int(object_, "neg", -3, 0, "t"), -3);
  EXPECT_EQ(json_number(object_, "x", "t"), 0.5);
  EXPECT_EQ(json_number(object_, "n", "t"), 5.0);
  EXPECT_EQ(json_string(object_, "s", "t"), "text");
  EXPECT_EQ(json_bool(object_, "b", "t"), true);
  EXPECT_EQ(**json_object(object_, "o", "t"), Json({{"a", 1}}));
  EXPECT_EQ((*json_array(object_, "l", "t"))->size(), 2u);
}

TEST_F(JsonAccess, WrongOnesNameKeyAndType) {
  EXPECT_THAT(json_int(object_, "x", 0, 9, "f").error().message,
              AllOf(HasSubstr("f: "), HasSubstr("\"x\""), HasSubstr("integer")));
  EXPECT_THAT(json_int(object_, "n", 6, 9, "f").error().message, HasSubstr("[6, 9], found 5"));
  EXPECT_FALSE(json_int(object_, "n", 0, 4, "f"));
  EXPECT_FALSE(json_int(object_, "big", 0, INT64_MAX, "f"));
  EXPECT_FALSE(json_int(object_, "s", 0, 9, "f"));
  EXPECT_FALSE(json_number(object_, "s", "f"));
  EXPECT_FALSE(json_string(object_, "n", "f"));
  EXPECT_FALSE(json_bool(object_, "n", "f"));
  EXPECT_FALSE(json_object(object_, "l", "f"));
  EXPECT_FALSE(json_array(object_, "o", "f"));
  EXPECT_THAT(json_string(object_, "gone", "f").error().message, HasSubstr("missing"));
  EXPECT_FALSE(json_string(object_, "null", "f"));
}

TEST_F(JsonAccess, AnythingButAnObjectHasNoKeys) {
  for (const Json& json : {Json(), Json(1), Json("s"), Json::array({1}), Json(true)}) {
    EXPECT_EQ(json_find(json, "n"), nullptr);
    EXPECT_FALSE(json_int(json, "n", 0, 9, "f"));
  }
  EXPECT_EQ(json_find(object_, "null"), nullptr);
}

TEST(DumpJson, BadUtf8IsReplacedNotThrown) {
  EXPECT_EQ(dump_json(Json("a\xff")), "\"a\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace sluice
