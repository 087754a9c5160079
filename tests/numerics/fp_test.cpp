// The scalar fp codecs: bytes and values against mlx's own (tests/numerics/golden/fp.bin, written
// by tools/golden_fp.py), the conversions they are made of, and the promises of `best` and of
// pricing.
#include "numerics/fp.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr QuantFormat kMxfp4 = kFpFormats[0], kMxfp8 = kFpFormats[1], kNvfp4 = kFpFormats[2];
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

struct Row {
  std::vector<std::byte> weight, scales;
  Row(size_t columns, const QuantFormat& format)
      : weight(columns / 8 * format.bits), scales(columns / format.group_size) {}
  FpRow view() { return {weight, scales}; }
  ConstFpRow view() const { return {weight, scales}; }
};

float rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return f16_to_f32(f32_to_f16(value));
  if (dtype == DType::kBF16) return bf16_to_f32(f32_to_bf16(value));
  return value;
}

uint8_t code_at(const Row& row, const QuantFormat& format, size_t index) {
  const auto byte = static_cast<uint8_t>(row.weight[format.bits == 8 ? index : index / 2]);
  if (format.bits == 8) return byte;
  return index % 2 == 0 ? byte & 0xf : byte >> 4;
}

// ---- golden ----

class Reader {
 public:
  explicit Reader(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    text_.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  bool empty() const { return text_.empty(); }
  uint32_t number() {
    uint32_t value;
    std::memcpy(&value, bytes(4).data(), 4);
    return value;
  }
  std::span<const std::byte> bytes(size_t count) {
    if (count > text_.size() - at_) throw std::runtime_error("golden file ends early");
    at_ += count;
    return std::as_bytes(std::span(text_)).subspan(at_ - count, count);
  }
  bool at_end() const { return at_ == text_.size(); }

 private:
  std::string text_;
  size_t at_ = 0;
};

struct Input {
  bool encodes = true;  // otherwise for decoding alone
  DType dtype = DType::kF32;
  size_t rows = 0, columns = 0;
  std::vector<float> values;
};

Input read_input(Reader& reader) {
  Input input;
  const uint32_t dtype = reader.number();
  input.encodes = dtype < 3;
  input.rows = reader.number();
  input.columns = reader.number();
  if (!input.encodes) return input;
  input.dtype = kTypes[dtype];
  const size_t width = dtype_info(input.dtype).block_bytes;
  const auto bytes = reader.bytes(input.rows * input.columns * width);
  for (size_t i = 0; i < input.rows * input.columns; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, bytes.data() + i * width, width);
    const auto half = static_cast<uint16_t>(bits);
    input.values.push_back(input.dtype == DType::kF32   ? std::bit_cast<float>(bits)
                           : input.dtype == DType::kF16 ? f16_to_f32(half)
                                                        : bf16_to_f32(half));
  }
  return input;
}

void expect_bytes(std::span<const std::byte> got, std::span<const std::byte> want,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << what << " byte " << i;
}

TEST(FpGolden, EncodesAndDecodesAsMlx) {
  const char* source = std::getenv("SLUICE_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "run through ctest, or set SLUICE_SOURCE_DIR";
  Reader reader(std::string(source) + "/tests/numerics/golden/fp.bin");
  ASSERT_FALSE(reader.empty());
  ASSERT_EQ(std::memcmp(reader.bytes(4).data(), "SLGF", 4), 0);
  std::vector<Input> inputs;
  for (uint32_t count = reader.number(); count > 0; --count) inputs.push_back(read_input(reader));
  uint32_t cases = reader.number();
  EXPECT_EQ(cases, 12u);
  for (; cases > 0; --cases) {
    const Input& input = inputs.at(reader.number());
    const QuantFormat format = kFpFormats[reader.number()];
    Row row(input.columns, format);
    const auto weight = reader.bytes(input.rows * row.weight.size());
    const auto scales = reader.bytes(input.rows * row.scales.size());
    const auto values = reader.bytes(input.rows * input.columns * 4);
    for (size_t r = 0; r < input.rows; ++r) {
      const std::string what =
          fmt::format("{} {} row {}", dtype_info(input.dtype).name, format_text(format), r);
      const auto row_of = [&](std::span<const std::byte> all, size_t bytes) {
        return all.subspan(r * bytes, bytes);
      };
      const auto expected_weight = row_of(weight, row.weight.size());
      const auto expected_scales = row_of(scales, row.scales.size());
      if (input.encodes) {
        encode_fp_parity(std::span(input.values).subspan(r * input.columns, input.columns), format,
                         input.dtype, row.view());
        expect_bytes(row.scales, expected_scales, what + " scales");
        expect_bytes(row.weight, expected_weight, what + " weight");
      }
      std::vector<float> decoded(input.columns), expected(input.columns);
      decode_fp({expected_weight, expected_scales}, format, decoded);
      std::memcpy(expected.data(), row_of(values, input.columns * 4).data(), input.columns * 4);
      for (size_t i = 0; i < input.columns; ++i) {
        if (std::isnan(expected[i]) && std::isnan(decoded[i])) continue;
        ASSERT_EQ(std::bit_cast<uint32_t>(decoded[i]), std::bit_cast<uint32_t>(expected[i]))
            << what << " value " << i;
      }
    }
  }
  reader.bytes(reader.number());
  EXPECT_TRUE(reader.at_end());
}

// ---- conversions ----

TEST(FpConversion, E4m3NearestIsTheNearest) {
  for (uint32_t code = 0; code <= 0x7e; ++code) {
    const float value = e4m3_value(static_cast<uint8_t>(code));
    EXPECT_EQ(nearest_e4m3(value), code);
    EXPECT_EQ(nearest_e4m3(-value), code | 0x80);
    if (code == 0x7e) break;
    const float next = e4m3_value(static_cast<uint8_t>(code + 1));
    ASSERT_LT(value, next);
    const float middle = (value + next) / 2;  // exact
    EXPECT_EQ(nearest_e4m3(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(nearest_e4m3(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(nearest_e4m3(std::nextafter(middle, kInf)), code + 1);
  }
  EXPECT_EQ(e4m3_value(0x7e), 448.0f);
  EXPECT_EQ(nearest_e4m3(1e30f), 0x7e);
  EXPECT_EQ(nearest_e4m3(-kInf), 0xfe);
  EXPECT_EQ(nearest_e4m3(-0.0f), 0x80);
}

// The published rule would floor, and let the maximum saturate.
TEST(FpConversion, ExponentIsThatOfTheNextPowerOfTwo) {
  EXPECT_EQ(parity_exponent(0), 0);
  EXPECT_EQ(parity_exponent(1), 0);
  EXPECT_EQ(parity_exponent(std::nextafter(1.0f, 2.0f)), 1);
  EXPECT_EQ(parity_exponent(2), 1);
  EXPECT_EQ(parity_exponent(0x1p-10f), -10);
  EXPECT_EQ(parity_exponent(0x1.8p-10f), -9);
  EXPECT_EQ(parity_exponent(0x1p-149f), -149);
  EXPECT_EQ(parity_exponent(std::numeric_limits<float>::max()), 128);
}

// ---- edge groups, in words ----

TEST(FpParity, ZerosHaveNoSignInE2m1) {
  Row row(32, kMxfp4);
  encode_fp_parity(std::vector<float>(32, -0.0f), kMxfp4, DType::kF32, row.view());
  EXPECT_EQ(row.scales[0], std::byte{127});
  for (const std::byte b : row.weight) EXPECT_EQ(b, std::byte{0});
  Row wide(32, kMxfp8);
  encode_fp_parity(std::vector<float>(32, -0.0f), kMxfp8, DType::kF32, wide.view());
  EXPECT_EQ(wide.scales[0], std::byte{127});
  for (const std::byte b : wide.weight) EXPECT_EQ(b, std::byte{0x80});
}

TEST(FpParity, TiesGoToTheSmallerMagnitude) {
  std::vector<float> values = {6, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
  for (size_t i = 0; i < 8; ++i) values.push_back(-values[i]);
  values.resize(32);
  Row row(32, kMxfp4);
  encode_fp_parity(values, kMxfp4, DType::kBF16, row.view());
  EXPECT_EQ(row.scales[0], std::byte{127});
  const int expected[] = {7, 0, 1, 2, 3, 4, 5, 6, 15, 0, 9, 10, 11, 12, 13, 14};
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(code_at(row, kMxfp4, i), expected[i]) << i;
}

TEST(FpParity, BeyondTheScalesOfE4m3ValuesAreLost) {
  Row row(16, kNvfp4);
  std::vector<float> decoded(16);
  encode_fp_parity(std::vector<float>(16, 1e-3f), kNvfp4, DType::kF32, row.view());
  EXPECT_EQ(row.scales[0], std::byte{0});
  decode_fp(std::as_const(row).view(), kNvfp4, decoded);
  EXPECT_EQ(decoded, std::vector<float>(16));
  encode_fp_parity(std::vector<float>(16, 4000), kNvfp4, DType::kF32, row.view());
  decode_fp(std::as_const(row).view(), kNvfp4, decoded);
  EXPECT_EQ(decoded, std::vector<float>(16, 6 * 448));  // saturated
  encode_fp_parity(std::vector<float>(16, 1e30f), kNvfp4, DType::kF32, row.view());
  EXPECT_EQ(code_at(row, kNvfp4, 0), 0);  // every difference is equal: the first code
}

TEST(FpParity, TinyGroupsAreFound) {
  std::vector<float> values(96, 1.0f);
  for (const QuantFormat& format : {kMxfp4, kMxfp8}) {
    EXPECT_EQ(find_unscalable(values, format, DType::kF32), 96u);
    for (size_t i = 32; i < 64; ++i) values[i] = 0x1p-127f;
    EXPECT_EQ(find_unscalable(values, format, DType::kF32), 32u);
    for (size_t i = 32; i < 64; ++i) values[i] = 0;
    EXPECT_EQ(find_unscalable(values, format, DType::kF32), 96u);
  }
  EXPECT_EQ(find_unscalable(std::vector<float>(16, 0x1p-127f), kNvfp4, DType::kF32), 16u);
  // Where MLX wraps around, the searched encoder still finds a scale.
  std::vector<float> tiny(32, 0x1p-127f), decoded(32);
  Row row(32, kMxfp4);
  encode_fp_best(tiny, kMxfp4, DType::kF32, row.view());
  decode_fp(std::as_const(row).view(), kMxfp4, decoded);
  EXPECT_EQ(decoded, tiny);
}

// ---- properties over random rows ----

std::vector<float> random_row(std::mt19937_64& random, size_t columns, DType dtype) {
  std::normal_distribution<float> bell(0, 1);
  std::student_t_distribution<float> heavy(3);
  const unsigned kind = static_cast<unsigned>(random() % 5);
  const float size = std::exp2(static_cast<float>(static_cast<int>(random() % 16) - 12));
  std::vector<float> row(columns);
  for (float& x : row) {
    x = bell(random) * size;
    if (kind == 1) x = heavy(random) * size;
    if (kind == 2) x = std::fabs(x) + size;
    if (kind == 3) x = std::round(x / size) * size;
    if (kind == 4 && random() % 50 == 0) x *= 30;
    x = rounded(x, dtype);
  }
  return row;
}

double group_error(std::span<const float> values, std::span<const float> decoded, size_t start,
                   size_t size) {
  double sum = 0;  // backwards on purpose: no promise may hang on the order
  for (size_t i = start + size; i-- > start;)
    sum += (double{decoded[i]} - values[i]) * (double{decoded[i]} - values[i]);
  return sum;
}

// Held against every scale byte there is: the few that are tried hold the optimum.
TEST(FpBest, NoScaleByteIsBetter) {
  const uint64_t seed = 31;
  std::mt19937_64 random(seed);
  for (const DType dtype : kTypes)
    for (const QuantFormat& format : kFpFormats) {
      double parity_sum = 0, best_sum = 0;
      for (int round = 0; round < 20; ++round) {
        const std::vector<float> values = random_row(random, 64, dtype);
        Row parity(64, format), best(64, format);
        encode_fp_parity(values, format, dtype, parity.view());
        encode_fp_best(values, format, dtype, best.view());
        std::vector<float> a(64), b(64), c(64);
        decode_fp(std::as_const(parity).view(), format, a);
        decode_fp(std::as_const(best).view(), format, b);
        const int largest = format == kNvfp4 ? 0x7e : 254;
        std::vector<float> codes;
        for (int code = 0; code < (format.bits == 4 ? 16 : 256); ++code) {
          if (format.bits == 8 && (code & 0x7f) == 0x7f) continue;
          Row one(format.group_size, format);
          std::vector<float> value(format.group_size);
          one.weight[0] = static_cast<std::byte>(code);
          one.scales[0] = std::byte{format == kNvfp4 ? uint8_t{0x38} : uint8_t{127}};
          decode_fp(std::as_const(one).view(), format, value);
          codes.push_back(value[0]);
        }
        for (size_t g = 0; g < 64; g += format.group_size) {
          const double found = group_error(values, b, g, format.group_size);
          const double theirs = group_error(values, a, g, format.group_size);
          ASSERT_LE(found, theirs) << format_text(format) << " seed " << seed;
          parity_sum += theirs;
          best_sum += found;
          double least = std::numeric_limits<double>::infinity();
          for (int byte = 0; byte <= largest; ++byte) {
            const float scale = format == kNvfp4 ? e4m3_value(static_cast<uint8_t>(byte))
                                                 : std::ldexp(1.0f, byte - 127);
            double sum = 0;
            for (size_t i = g; i < g + format.group_size && sum < least; ++i) {
              double nearest = std::numeric_limits<double>::infinity();
              for (const float code : codes)
                nearest = std::min(nearest, std::fabs(double{code} * scale - values[i]));
              sum += nearest * nearest;
            }
            least = std::min(least, sum);
          }
          ASSERT_LE(found, least * (1 + 1e-5))
              << format_text(format) << ' ' << dtype_info(dtype).name << " seed " << seed
              << " round " << round << " group " << g;
        }
      }
      // Clipping never pays where steps grow with the value.
      EXPECT_TRUE(best_sum < parity_sum || format == kMxfp8) << format_text(format);
    }
}

TEST(FpRowError, IsThatOfTheDecodedRow) {
  std::mt19937_64 random(8);
  for (const QuantFormat& format : kFpFormats) {
    const std::vector<float> values = random_row(random, 480, DType::kBF16);
    Row row(480, format);
    encode_fp_parity(values, format, DType::kBF16, row.view());
    std::vector<float> decoded(480);
    decode_fp(std::as_const(row).view(), format, decoded);
    const ErrorStats stats = fp_row_error(values, std::as_const(row).view(), format);
    const ErrorStats plain = error_between(values, decoded);
    EXPECT_NEAR(stats.squared_error, plain.squared_error, 1e-12 * plain.squared_error);
    EXPECT_NEAR(stats.squared_weight, plain.squared_weight, 1e-12 * plain.squared_weight);
    EXPECT_EQ(stats.error_max, plain.error_max);
  }
}

TEST(FpPrice, IsTheEncodersError) {
  const uint64_t seed = 12;
  std::mt19937_64 random(seed);
  for (const DType dtype : kTypes)
    for (const size_t columns : {32u, 64u, 480u, 4128u}) {
      const std::vector<float> values = random_row(random, columns, dtype);
      const FpPrices prices = price_fp_row(values, dtype);
      for (size_t i = 0; i < kFpCandidates; ++i) {
        Row row(columns, kFpFormats[i]);
        encode_fp_parity(values, kFpFormats[i], dtype, row.view());
        const ErrorStats stats = fp_row_error(values, std::as_const(row).view(), kFpFormats[i]);
        // Only nvfp4's quotient is rounded to dtype, which moves near-ties.
        const double tolerance = i == 2 ? (columns < 1000 ? 3e-2 : 1e-3) : 1e-5;
        EXPECT_NEAR(prices.squared_error[i], stats.squared_error, tolerance * stats.squared_error)
            << format_text(kFpFormats[i]) << ' ' << dtype_info(dtype).name << ' ' << columns;
      }
    }
}

TEST(FpPrice, SpecialGroupsAreLeftToTheEncoder) {
  std::vector<float> values(48, 1.0f);
  FpPrices prices = price_fp_row(values, DType::kF32);
  EXPECT_EQ(prices.squared_error[0], kInf);  // 48 is no multiple of 32
  EXPECT_EQ(prices.squared_error[1], kInf);
  EXPECT_LT(prices.squared_error[2], 1.0);
  values.assign(64, 0x1p-127f);
  prices = price_fp_row(values, DType::kF32);
  EXPECT_EQ(prices.squared_error[0], kInf);
  EXPECT_EQ(prices.squared_error[1], kInf);
  values.assign(64, 1e12f);
  prices = price_fp_row(values, DType::kF32);
  EXPECT_LT(prices.squared_error[0], kInf);
  EXPECT_EQ(prices.squared_error[2], kInf);
  values.assign(64, 0.0f);
  prices = price_fp_row(values, DType::kF32);
  for (const double price : prices.squared_error) EXPECT_EQ(price, 0);
}

// Every code under every exponent, in groups of which each has all sixteen codes twice.
TEST(Mxfp4AsAffine, HoldsEveryValue) {
  std::vector<std::byte> weight, scales;
  for (unsigned exponent = 0; exponent < 256; ++exponent) {
    scales.push_back(static_cast<std::byte>(exponent));
    for (unsigned i = 0; i < 16; ++i)
      weight.push_back(static_cast<std::byte>(i % 16 | (15 - i % 16) << 4));
  }
  const QuantFormat mxfp4 = kFpFormats[0];
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const size_t width = dtype_info(dtype).block_bytes;
    size_t moved = 0;
    for (size_t g = 0; g < scales.size(); ++g) {
      const ConstFpRow in{std::span(weight).subspan(g * 16, 16), std::span(scales).subspan(g, 1)};
      std::vector<std::byte> codes(20), scale(width), bias(width);
      const int exponent = static_cast<int>(g) - 128;
      const bool normal = dtype == DType::kF16 ? exponent >= -14 && exponent <= 11
                                               : exponent >= -126 && exponent <= 123;
      ASSERT_EQ(mxfp4_to_affine(in, dtype, {codes, scale, bias}), normal) << exponent;
      if (!normal) continue;
      ++moved;
      std::vector<float> expected(32), found(32);
      decode_fp(in, mxfp4, expected);
      decode_affine({codes, scale, bias}, kMxfp4AsAffine, dtype, found);
      EXPECT_EQ(found, expected) << exponent;
    }
    EXPECT_GT(moved, 20u);
  }
}

}  // namespace
}  // namespace sluice::numerics
