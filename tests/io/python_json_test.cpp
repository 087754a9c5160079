// Numbers that Python writes into configurations and JSON does not know.
#include "io/python_json.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"

namespace sluice::io {
namespace {

TEST(PythonJson, NumbersThatJsonDoesNotKnow) {
  const auto json = parse_json(
      without_python_numbers(R"({"limit": [0.0, Infinity], "low":-Infinity, "none": NaN})"), "t");
  ASSERT_TRUE(json.has_value()) << json.error().message;
  const auto high = (*json)["limit"][1].get<double>(), low = (*json)["low"].get<double>();
  EXPECT_TRUE(std::isfinite(high));
  EXPECT_TRUE(std::isinf(static_cast<float>(high)));
  EXPECT_EQ(low, -high);
  EXPECT_TRUE((*json)["none"].is_null());
}

TEST(PythonJson, StringsStay) {
  for (const char* text :
       {R"({"a": "Infinity", "NaN": "-Infinity \" NaN \\", "b": 1})", R"(["Infinity)", "", "\"\\"})
    EXPECT_EQ(without_python_numbers(text), text);
}

// What is malformed stays so.
TEST(PythonJson, NothingElseBecomesJson) {
  for (const char* text : {R"({"a": Infinit})", R"({"a": Infinityy})", R"({"a": nan})"})
    EXPECT_FALSE(parse_json(without_python_numbers(text), "t").has_value()) << text;
}

}  // namespace
}  // namespace sluice::io
