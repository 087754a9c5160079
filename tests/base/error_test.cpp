// The macros through which every error travels.
#include "base/error.h"

#include <gmock/gmock.h>

#include <memory>

namespace sluice {
namespace {

using ::testing::HasSubstr;

Status status_of(bool good) {
  if (good) return {};
  return fail(ErrorCode::kIo, "disk {} failed", 7);
}
Result<int> half(int value) {
  if (value % 2 == 0) return value / 2;
  return fail(ErrorCode::kInvalidArgument, "{} is odd", value);
}
Result<std::unique_ptr<int>> boxed(int value) { return std::make_unique<int>(value); }

Result<int> quarter(int value) {
  SLUICE_TRY(status_of(value != 0));
  SLUICE_ASSIGN(const int first, half(value));
  int second = 0;
  SLUICE_ASSIGN(second, half(first));
  SLUICE_ASSIGN(const std::unique_ptr<int> box, boxed(second));
  return *box;
}

TEST(Error, ValuesPassAndErrorsReturn) {
  EXPECT_EQ(quarter(12), 3);
  EXPECT_EQ(quarter(0).error().message, "disk 7 failed");
  EXPECT_EQ(quarter(0).error().code, ErrorCode::kIo);
  EXPECT_EQ(quarter(3).error().message, "3 is odd");
  EXPECT_EQ(quarter(6).error().message, "3 is odd");
}

TEST(Error, TryIsOneStatement) {
  const auto nested = [](bool a, bool b) -> Status {
    if (a)
      SLUICE_TRY(status_of(b));
    else
      return fail(ErrorCode::kCorrupt, "else");
    return {};
  };
  EXPECT_TRUE(nested(true, true));
  EXPECT_EQ(nested(true, false).error().code, ErrorCode::kIo);
  EXPECT_EQ(nested(false, true).error().message, "else");
}

TEST(Error, EachExpressionIsEvaluatedOnce) {
  int calls = 0;
  const auto counted = [&]() -> Result<int> { return ++calls; };
  const auto run = [&]() -> Result<int> {
    SLUICE_ASSIGN(const int value, counted());
    return value;
  };
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(calls, 1);
}

TEST(Error, ContextComesFirst) {
  const auto error = in_context("tensor a", Error{ErrorCode::kCorrupt, "too short"});
  EXPECT_EQ(error.error().message, "tensor a: too short");
  EXPECT_EQ(error.error().code, ErrorCode::kCorrupt);
}

TEST(Error, EveryCodeHasAName) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kCancelled); ++code)
    EXPECT_NE(error_code_name(static_cast<ErrorCode>(code)), "unknown");
}

TEST(ErrorDeathTest, ChecksNameExpressionAndPlace) {
  EXPECT_DEATH(SLUICE_CHECK(1 + 1 == 3), "error_test.cpp:[0-9]+: internal error: 1 \\+ 1 == 3");
  SLUICE_CHECK(1 + 1 == 2);
}

}  // namespace
}  // namespace sluice
