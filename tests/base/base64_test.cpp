// Known pairs of bytes and text.
#include "base/base64.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

// RFC 4648, section 10, and the last two digits.
TEST(Base64, PadsWhatIsNoMultipleOfThree) {
  const std::pair<std::string_view, std::string_view> cases[] = {{"", ""},
                                                                 {"f", "Zg=="},
                                                                 {"fo", "Zm8="},
                                                                 {"foo", "Zm9v"},
                                                                 {"foob", "Zm9vYg=="},
                                                                 {"fooba", "Zm9vYmE="},
                                                                 {"foobar", "Zm9vYmFy"},
                                                                 {"\xfb\xff", "+/8="}};
  for (const auto& [bytes, text] : cases) EXPECT_EQ(base64(std::as_bytes(std::span(bytes))), text);
}

}  // namespace
}  // namespace sluice
