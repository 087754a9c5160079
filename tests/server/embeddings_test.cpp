// Vectors of embeddings, and what a request for them may be.
#include "server/embeddings.h"

#include <gtest/gtest.h>

#include <limits>

namespace sluice::server {
namespace {

TEST(Embeddings, OneLong) {
  EXPECT_EQ(normalized({3, 4}), (std::vector<float>{0.6f, 0.8f}));
  EXPECT_EQ(normalized({0, 0}), (std::vector<float>{0, 0}));
  // Squares that f32 cannot hold.
  const float large = std::numeric_limits<float>::max() / 2;
  EXPECT_EQ(normalized({large, 0}), (std::vector<float>{1, 0}));
}

TEST(Embeddings, Requests) {
  const auto parse = [](std::string_view text) {
    const auto body = parse_json(text, "the body");
    SLUICE_CHECK(body.has_value());
    return parse_embedding_request(*body, 100, 8);
  };
  const auto inputs = [&](std::string_view text) {
    const auto request = parse(text);
    return request ? request->inputs.size() : 0;
  };
  EXPECT_EQ(inputs(R"({"input": "x"})"), 1u);
  EXPECT_EQ(inputs(R"({"input": ["x", "y"]})"), 2u);
  EXPECT_EQ(inputs(R"({"input": [1, 2]})"), 1u);
  EXPECT_EQ(inputs(R"({"input": [[1, 2], [3]]})"), 2u);
  const auto base64 = parse(R"({"input": "x", "encoding_format": "base64", "dimensions": 8})");
  ASSERT_TRUE(base64.has_value());
  EXPECT_TRUE(base64->base64);
  Json many = Json::object();
  many["input"] = std::vector<std::string>(2049, "x");
  for (const std::string& text :
       {std::string(R"({"input": [1, 100]})"), dump_json(many), std::string("{}"),
        std::string(R"({"input": "x", "dimensions": 4})"),
        std::string(R"({"input": "x", "encoding_format": "f16"})")}) {
    const auto refused = parse(text);
    ASSERT_FALSE(refused.has_value()) << text.substr(0, 99);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace sluice::server
