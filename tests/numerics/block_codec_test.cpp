// GGUF blocks must decode to the bits ggml produces, and the moves to affine must be exact or
// refused. Golden data: tests/numerics/golden/make_blocks.py; with the real-input folder at hand
// a whole matrix per type is checked as well.
#include "numerics/block_codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "numerics/float_types.h"
#include "numerics/fp.h"

namespace sluice::numerics {
namespace {

constexpr std::pair<const char*, DType> kBlockTypes[] = {
    {"q4_0", DType::kQ4_0},       {"q4_1", DType::kQ4_1},     {"q5_0", DType::kQ5_0},
    {"q5_1", DType::kQ5_1},       {"q8_0", DType::kQ8_0},     {"q4_K", DType::kQ4_K},
    {"q5_K", DType::kQ5_K},       {"q6_K", DType::kQ6_K},     {"q2_K", DType::kQ2_K},
    {"q3_K", DType::kQ3_K},       {"iq1_s", DType::kIQ1_S},   {"iq1_m", DType::kIQ1_M},
    {"iq2_xxs", DType::kIQ2_XXS}, {"iq2_xs", DType::kIQ2_XS}, {"iq2_s", DType::kIQ2_S},
    {"iq3_xxs", DType::kIQ3_XXS}, {"iq3_s", DType::kIQ3_S},   {"iq4_nl", DType::kIQ4_NL},
    {"iq4_xs", DType::kIQ4_XS},   {"tq1_0", DType::kTQ1_0},   {"tq2_0", DType::kTQ2_0},
    {"q1_0", DType::kQ1_0},       {"q2_0", DType::kQ2_0},     {"mxfp4", DType::kMXFP4},
    {"nvfp4", DType::kNVFP4}};

std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return values;
}

void expect_same_bits(std::span<const float> got, std::span<const float> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << "element " << i << ": " << got[i] << " against " << want[i];
}

// Moves the blocks and holds scale·code + bias against the decoded values: equal as numbers
// (a zero may change its sign).
void expect_exact_move(DType dtype, std::span<const std::byte> blocks,
                       std::span<const float> want) {
  const auto format = lossless_affine(dtype);
  ASSERT_TRUE(format);
  std::vector<std::byte> weight(want.size() * format->bits / 8);
  const size_t parameter_bytes = want.size() / format->group_size * 2;
  std::vector<std::byte> scales(parameter_bytes), biases(parameter_bytes);
  ASSERT_TRUE(move_lossless(dtype, blocks, {weight, scales, biases}));
  std::vector<float> got(want.size());
  decode_affine({weight, scales, biases}, *format, DType::kF16, got);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << "element " << i;
}

TEST(BlockCodecTest, GoldenBlocksDecodeBitForBit) {
  const char* source = std::getenv("SLUICE_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const auto file = read_file(std::string(source) + "/tests/numerics/golden/ggml_blocks.bin");
  size_t at = 0;
  for (const auto& [name, dtype] : kBlockTypes) {
    SCOPED_TRACE(name);
    ASSERT_LE(at + 16, file.size());
    ASSERT_STREQ(reinterpret_cast<const char*>(&file[at]), name);
    uint32_t bytes, elements;
    std::memcpy(&bytes, &file[at + 8], 4);
    std::memcpy(&elements, &file[at + 12], 4);
    ASSERT_EQ(tensor_bytes(dtype, Shape{elements}), bytes);
    const auto blocks = std::span(file).subspan(at + 16, bytes);
    const auto want = floats_of(std::span(file).subspan(at + 16 + bytes, elements * 4));
    std::vector<float> got(elements);
    decode_elements(dtype, blocks, got);
    expect_same_bits(got, want);
    if (lossless_affine(dtype)) {
      // Only the row of the real matrix: −128d of a random f16 may overflow.
      const size_t real = 512;
      expect_exact_move(dtype, blocks.first(*tensor_bytes(dtype, Shape{real})),
                        std::span(want).first(real));
    }
    at += 16 + bytes + elements * 4;
  }
  EXPECT_EQ(at, file.size());
}

TEST(BlockCodecTest, RealMatrixDecodesBitForBit) {
  const char* inputs = std::getenv("SLUICE_REAL_INPUTS");
  if (inputs == nullptr) GTEST_SKIP() << "no real-input folder";
  const std::string folder = std::string(inputs) + "/gguf/quant-fixture/";
  for (const auto& [name, dtype] : kBlockTypes) {
    SCOPED_TRACE(name);
    const auto blocks = read_file(folder + name + ".blocks");
    const auto want = floats_of(read_file(folder + name + ".deq.f32"));
    ASSERT_EQ(want.size(), 64u * 512);
    std::vector<float> got(want.size());
    decode_elements(dtype, blocks, got);
    expect_same_bits(got, want);
    if (lossless_affine(dtype)) expect_exact_move(dtype, blocks, want);
  }
}

TEST(BlockCodecTest, MoveIsRefusedWhenItIsNotExact) {
  struct Case {
    DType dtype;
    float d, m;
    bool ok;
  };
  const float inf = INFINITY;
  for (const Case& c : {
           Case{DType::kQ4_0, 8188.0f, 0, true},  // 65504 / 8
           Case{DType::kQ4_0, 8192.0f, 0, false},   Case{DType::kQ4_0, -8192.0f, 0, false},
           Case{DType::kQ4_0, 0x1p-24f, 0, true},  // the smallest subnormal
           Case{DType::kQ4_0, 0.0f, 0, true},       Case{DType::kQ4_0, NAN, 0, false},
           Case{DType::kQ4_0, inf, 0, false},       Case{DType::kQ5_0, 4094.0f, 0, true},
           Case{DType::kQ5_0, 4096.0f, 0, false},   Case{DType::kQ8_0, 511.75f, 0, true},
           Case{DType::kQ8_0, 512.0f, 0, false},    Case{DType::kQ4_1, 65504.0f, -65504.0f, true},
           Case{DType::kQ4_1, 1.0f, NAN, false},    Case{DType::kQ4_1, inf, 1.0f, false},
           Case{DType::kQ5_1, 1.0f, inf, false},    Case{DType::kQ5_1, 1.0f, 1.0f, true},
           Case{DType::kIQ4_NL, 511.75f, 0, true},  Case{DType::kIQ4_NL, 512.0f, 0, false},
           Case{DType::kTQ1_0, 65504.0f, 0, true},  Case{DType::kTQ1_0, inf, 0, false},
           Case{DType::kTQ2_0, -65504.0f, 0, true}, Case{DType::kTQ2_0, NAN, 0, false},
           Case{DType::kQ1_0, 65504.0f, 0, true},   Case{DType::kQ1_0, inf, 0, false},
           Case{DType::kQ2_0, 0x1p-24f, 0, true},   Case{DType::kQ2_0, -inf, 0, false},
       }) {
    SCOPED_TRACE(testing::Message() << dtype_info(c.dtype).name << " d " << c.d << " m " << c.m);
    const DTypeInfo& info = dtype_info(c.dtype);
    std::vector<std::byte> block(info.block_bytes, std::byte{0x5a});
    const uint16_t d = f32_to_f16(c.d), m = f32_to_f16(c.m);
    const bool last = c.dtype == DType::kTQ1_0 || c.dtype == DType::kTQ2_0;
    std::memcpy(block.data() + (last ? info.block_bytes - 2 : 0), &d, 2);
    if (c.dtype == DType::kQ4_1 || c.dtype == DType::kQ5_1) std::memcpy(block.data() + 2, &m, 2);
    const QuantFormat format = *lossless_affine(c.dtype);
    std::byte weight[64], scales[4], biases[4];
    const size_t bytes = info.block_elements * format.bits / 8;
    const size_t parameter_bytes = info.block_elements / format.group_size * 2;
    EXPECT_EQ(
        move_lossless(c.dtype, block,
                      {std::span(weight).first(bytes), std::span(scales).first(parameter_bytes),
                       std::span(biases).first(parameter_bytes)}),
        c.ok);
    if (c.ok) {
      std::vector<float> want(info.block_elements);
      decode_elements(c.dtype, block, want);
      expect_exact_move(c.dtype, block, want);
    }
  }
}

// The smallest format whose groups are those of the block, or divide it.
TEST(BlockCodecTest, MovesTakeTheSmallestFormat) {
  using enum DType;
  const auto is = [](DType dtype, uint8_t bits, uint16_t group) {
    return lossless_affine(dtype) == QuantFormat{QuantMode::kAffine, bits, group};
  };
  EXPECT_TRUE(is(kTQ1_0, 2, 128));
  EXPECT_TRUE(is(kTQ2_0, 2, 128));
  EXPECT_TRUE(is(kQ1_0, 2, 128));
  EXPECT_TRUE(is(kQ2_0, 2, 64));
  EXPECT_TRUE(is(kIQ4_NL, 8, 32));
  EXPECT_TRUE(is(kQ4_0, 4, 32));
}

// Every code under every scale: the moved row decodes to the bits that ggml gives.
TEST(BlockCodecTest, FpBlocksMoveExactly) {
  std::mt19937 random(3);
  for (const DType dtype : {DType::kMXFP4, DType::kNVFP4}) {
    const QuantFormat format = lossless_fp(dtype).value();
    const DTypeInfo& info = dtype_info(dtype);
    const size_t groups = info.block_elements / format.group_size;
    for (int scale = 0; scale < 256; ++scale) {
      std::vector<std::byte> block(info.block_bytes), weight(info.block_elements / 2),
          scales(groups);
      for (std::byte& b : block) b = static_cast<std::byte>(random());
      for (size_t g = 0; g < groups; ++g) block[g] = static_cast<std::byte>(scale);
      const bool readable = format.mode == QuantMode::kMxfp4 ? scale != 0xff : scale < 0x7f;
      ASSERT_EQ(move_lossless_fp(dtype, block, {weight, scales}), readable) << scale;
      if (!readable) continue;
      std::vector<float> want(info.block_elements), got(info.block_elements);
      decode_elements(dtype, block, want);
      decode_fp({weight, scales}, format, got);
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
            << info.name << " scale " << scale << " element " << i;
    }
  }
  EXPECT_FALSE(lossless_fp(DType::kQ4_0));
}

TEST(BlockCodecTest, OnlyAffineBlocksMove) {
  for (const DType dtype : {DType::kF16, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kU32,
                            DType::kQ2_K, DType::kIQ4_XS, DType::kIQ1_S, DType::kIQ3_S})
    EXPECT_FALSE(lossless_affine(dtype));
}

TEST(BlockCodecTest, PlainElements) {
  const uint8_t bytes[] = {0x00, 0x7e, 0xfe, 0x7f, 0x01, 0x38, 0xb8, 0x08};
  const float want[] = {0.0f, 448.0f, -448.0f, NAN, 0x1p-9f, 1.0f, -1.0f, 0x1p-6f};
  float got[8];
  decode_elements(DType::kF8E4M3, std::as_bytes(std::span(bytes)), got);
  for (int i = 0; i < 8; ++i) {
    if (std::isnan(want[i])) {
      EXPECT_TRUE(std::isnan(got[i]));
    } else {
      EXPECT_EQ(got[i], want[i]);
    }
  }
  const uint8_t e5m2[] = {0x3c, 0x7b, 0x01, 0xfc};
  decode_elements(DType::kF8E5M2, std::as_bytes(std::span(e5m2)), std::span(got).first(4));
  EXPECT_EQ(got[0], 1.0f);
  EXPECT_EQ(got[1], 57344.0f);
  EXPECT_EQ(got[2], 0x1p-16f);
  EXPECT_EQ(got[3], -INFINITY);
  const uint8_t e8m0[] = {127, 0, 254, 255};
  decode_elements(DType::kF8E8M0, std::as_bytes(std::span(e8m0)), std::span(got).first(4));
  EXPECT_EQ(got[0], 1.0f);
  EXPECT_EQ(got[1], 0x1p-127f);
  EXPECT_EQ(got[2], 0x1p127f);
  EXPECT_TRUE(std::isnan(got[3]));
  const double doubles[] = {1.5, -1e300};
  decode_elements(DType::kF64, std::as_bytes(std::span(doubles)), std::span(got).first(2));
  EXPECT_EQ(got[0], 1.5f);
  EXPECT_EQ(got[1], -INFINITY);
}

TEST(BlockCodecTest, EncodeDecodeOfNarrowFloatsIsIdentity) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> values(all.size());
    decode_elements(dtype, std::as_bytes(std::span(all)), values);
    std::vector<uint16_t> back(all.size());
    encode_elements(dtype, values, std::as_writable_bytes(std::span(back)));
    for (size_t i = 0; i < all.size(); ++i) {
      if (std::isnan(values[i])) continue;
      ASSERT_EQ(back[i], all[i]);
    }
  }
}

TEST(BlockCodecTest, UnalignedInput) {
  std::vector<std::byte> bytes(1 + 144 * 2);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 % 60);
  std::vector<std::byte> aligned(bytes.begin() + 1, bytes.end());
  std::vector<float> a(512), b(512);
  decode_elements(DType::kQ4_K, std::span(bytes).subspan(1), a);
  decode_elements(DType::kQ4_K, aligned, b);
  expect_same_bits(a, b);
}

TEST(BlockCodecTest, ValueSteps) {
  const auto one = [](ValueStep step, DType dtype, float value) {
    apply(step, dtype, {&value, 1});
    return value;
  };
  EXPECT_EQ(one(ValueStep::kNone, DType::kF32, 0.3f), 0.3f);
  EXPECT_EQ(one(ValueStep::kAddOne, DType::kF32, 0.25f), 1.25f);
  EXPECT_EQ(one(ValueStep::kSubtractOne, DType::kF32, 1.25f), 0.25f);
  EXPECT_FLOAT_EQ(one(ValueStep::kLogOfMinus, DType::kF32, -std::exp(1.5f)), 1.5f);
  EXPECT_TRUE(std::isnan(one(ValueStep::kLogOfMinus, DType::kF32, 2)));
  // 1 + 2⁻⁹ lies between two numbers of bf16, and the even one is below.
  EXPECT_EQ(one(ValueStep::kAddOne, DType::kBF16, 0x1p-9f), 1);
  EXPECT_EQ(one(ValueStep::kAddOne, DType::kF16, 0x1p-12f), 1);
}

}  // namespace
}  // namespace sluice::numerics
