// Names, shapes and bytes of quantization formats.
#include "numerics/quant_format.h"

#include <gtest/gtest.h>

#include <vector>

#include "numerics/affine_price.h"

namespace sluice::numerics {
namespace {

TEST(QuantFormat, TextRoundTrips) {
  EXPECT_EQ(parse_format("16-bit").value(), QuantFormat{});
  EXPECT_EQ(parse_format("float").value(), QuantFormat{});
  EXPECT_EQ(format_text(QuantFormat{}), "16-bit");
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    const QuantFormat format = affine_candidate_format(index);
    EXPECT_EQ(parse_format(format_text(format)).value(), format);
    EXPECT_FALSE(is_fp(format));
  }
  for (const QuantFormat& format : kFpFormats) {
    EXPECT_EQ(parse_format(format_text(format)).value(), format);
    EXPECT_TRUE(is_fp(format));
  }
  EXPECT_EQ(format_text(kFpFormats[0]), "mxfp4");
}

TEST(QuantFormat, RefusesOthers) {
  for (const char* text : {"", "4", "4/", "/64", "7/64", "4/16", "4/64 ", "+4/64", "-4/64",
                           "4/64/1", "99999999999/64", "mxfp4/32", "mxfp6"}) {
    const auto format = parse_format(text);
    ASSERT_FALSE(format.has_value()) << text;
    EXPECT_EQ(format.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(format.error().message.find(text), std::string::npos);
  }
}

TEST(QuantFormat, EncoderNamesRoundTrip) {
  for (const Encoder encoder :
       {Encoder::kCast, Encoder::kParity, Encoder::kBest, Encoder::kLossless})
    EXPECT_EQ(encoder_from_name(encoder_name(encoder)), encoder);
  EXPECT_EQ(encoder_from_name("finest"), std::nullopt);
}

TEST(QuantFormat, EncodesMatricesOfWholeGroups) {
  const QuantFormat format{QuantMode::kAffine, 4, 64};
  using Shape = std::vector<uint64_t>;
  EXPECT_TRUE(can_encode(format, Shape{3, 128}));
  EXPECT_TRUE(can_encode(format, Shape{2, 3, 64}));
  EXPECT_FALSE(can_encode(format, Shape{128}));
  EXPECT_FALSE(can_encode(format, Shape{3, 96}));
  EXPECT_TRUE(can_encode({QuantMode::kNvfp4, 4, 16}, Shape{3, 48}));
  EXPECT_FALSE(can_encode({QuantMode::kMxfp4, 4, 32}, Shape{3, 48}));
  EXPECT_TRUE(can_encode(QuantFormat{}, Shape{7}));
}

TEST(QuantFormat, CountsBytes) {
  using Shape = std::vector<uint64_t>;
  const EncodedBytes matrix =
      encoded_bytes({QuantMode::kAffine, 3, 32}, Shape{2, 5, 64}, DType::kBF16);
  EXPECT_EQ(matrix.weight, 2u * 5 * 64 * 3 / 8);
  EXPECT_EQ(matrix.scales, 2u * 5 * 2 * 2);
  EXPECT_EQ(matrix.biases, matrix.scales);
  EXPECT_EQ(matrix.total(), matrix.weight + 2 * matrix.scales);
  EXPECT_EQ(encoded_bytes({QuantMode::kAffine, 8, 128}, Shape{1, 128}, DType::kF32).scales, 4u);
  const EncodedBytes mxfp8 =
      encoded_bytes({QuantMode::kMxfp8, 8, 32}, Shape{2, 5, 64}, DType::kBF16);
  EXPECT_EQ(mxfp8.weight, 2u * 5 * 64);
  EXPECT_EQ(mxfp8.scales, 2u * 5 * 2);
  EXPECT_EQ(mxfp8.biases, 0u);
  EXPECT_EQ(encoded_bytes({QuantMode::kNvfp4, 4, 16}, Shape{1, 48}, DType::kF32).total(), 27u);
  const EncodedBytes plain = encoded_bytes(QuantFormat{}, Shape{7, 3}, DType::kF16);
  EXPECT_EQ(plain.total(), 42u);
  EXPECT_EQ(plain.scales, 0u);
}

}  // namespace
}  // namespace sluice::numerics
