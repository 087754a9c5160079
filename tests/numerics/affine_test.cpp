// The scalar affine encoders: bytes against mlx's own (tests/numerics/golden/affine.bin, written by
// tools/golden_affine.py), packing, error bounds, and the promise that `best` is never worse.
#include "numerics/affine.h"

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

#include "numerics/affine_price.h"
#include "numerics/float_types.h"

namespace sluice::numerics {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Row {
  std::vector<std::byte> weight, scales, biases;
  Row(size_t columns, const QuantFormat& format, DType dtype)
      : weight(columns / 8 * format.bits),
        scales(columns / format.group_size * dtype_info(dtype).block_bytes),
        biases(scales) {}
  AffineRow view() { return {weight, scales, biases}; }
  ConstAffineRow view() const { return {weight, scales, biases}; }
};

float rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return f16_to_f32(f32_to_f16(value));
  if (dtype == DType::kBF16) return bf16_to_f32(f32_to_bf16(value));
  return value;
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
  DType dtype;
  size_t rows, columns;
  std::vector<float> values;
};

Input read_input(Reader& reader) {
  constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
  Input input{kTypes[reader.number()], 1, 0, {}};
  const uint32_t axes = reader.number();
  for (uint32_t i = 0; i + 1 < axes; ++i) input.rows *= reader.number();
  input.columns = reader.number();
  const size_t width = dtype_info(input.dtype).block_bytes;
  const auto bytes = reader.bytes(input.rows * input.columns * width);
  input.values.resize(input.rows * input.columns);
  for (size_t i = 0; i < input.values.size(); ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, bytes.data() + i * width, width);
    const uint16_t half = static_cast<uint16_t>(bits);
    input.values[i] = input.dtype == DType::kF32   ? std::bit_cast<float>(bits)
                      : input.dtype == DType::kF16 ? f16_to_f32(half)
                                                   : bf16_to_f32(half);
  }
  return input;
}

void expect_bytes(std::span<const std::byte> got, std::span<const std::byte> want,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size()), 0) << what;
}

TEST(AffineGolden, ParityEqualsMlx) {
  const char* source = std::getenv("SLUICE_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "run through ctest, or set SLUICE_SOURCE_DIR";
  Reader reader(std::string(source) + "/tests/numerics/golden/affine.bin");
  ASSERT_FALSE(reader.empty());
  ASSERT_EQ(std::memcmp(reader.bytes(4).data(), "SLGA", 4), 0);
  std::vector<Input> inputs;
  for (uint32_t count = reader.number(); count > 0; --count) inputs.push_back(read_input(reader));
  uint32_t cases = reader.number();
  EXPECT_EQ(cases, 72u);
  for (; cases > 0; --cases) {
    const Input& input = inputs.at(reader.number());
    const QuantFormat format{QuantMode::kAffine, static_cast<uint8_t>(reader.number()),
                             static_cast<uint16_t>(reader.number())};
    Row row(input.columns, format, input.dtype);
    const auto weight = reader.bytes(input.rows * row.weight.size());
    const auto scales = reader.bytes(input.rows * row.scales.size());
    const auto biases = reader.bytes(input.rows * row.biases.size());
    for (size_t r = 0; r < input.rows; ++r) {
      const std::string what =
          fmt::format("{} {} row {}", dtype_info(input.dtype).name, format_text(format), r);
      encode_affine_parity(std::span(input.values).subspan(r * input.columns, input.columns),
                           format, input.dtype, ParityRule::kCpu, row.view());
      expect_bytes(row.weight, weight.subspan(r * row.weight.size(), row.weight.size()), what);
      expect_bytes(row.scales, scales.subspan(r * row.scales.size(), row.scales.size()), what);
      expect_bytes(row.biases, biases.subspan(r * row.biases.size(), row.biases.size()), what);
    }
  }
  reader.bytes(reader.number());
  EXPECT_TRUE(reader.at_end());
}

// ---- edge groups of the cpu rule, in words ----

struct Parameters {
  float scale, bias;
};
Parameters parameters_f32(const Row& row) {
  Parameters p{};
  std::memcpy(&p.scale, row.scales.data(), 4);
  std::memcpy(&p.bias, row.biases.data(), 4);
  return p;
}

TEST(AffineParity, ZeroGroupKeepsTheSmallestScale) {
  const QuantFormat format{QuantMode::kAffine, 4, 32};
  Row row(32, format, DType::kBF16);
  encode_affine_parity(std::vector<float>(32), format, DType::kBF16, ParityRule::kCpu, row.view());
  uint16_t scale, bias;
  std::memcpy(&scale, row.scales.data(), 2);
  std::memcpy(&bias, row.biases.data(), 2);
  EXPECT_EQ(scale, 0xb3d7);
  EXPECT_EQ(bias, 0);
  for (const std::byte b : row.weight) EXPECT_EQ(b, std::byte{0});
}

TEST(AffineParity, ConstantGroupIsItsBias) {
  const QuantFormat format{QuantMode::kAffine, 3, 64};
  Row row(64, format, DType::kF32);
  encode_affine_parity(std::vector<float>(64, -2.5f), format, DType::kF32, ParityRule::kCpu,
                       row.view());
  EXPECT_EQ(parameters_f32(row).bias, -2.5f);
  for (const std::byte b : row.weight) EXPECT_EQ(b, std::byte{0});
}

TEST(AffineParity, GpuRuleLetsARangeReachZero) {
  const QuantFormat format{QuantMode::kAffine, 2, 32};
  std::vector<float> values(32);
  for (size_t i = 0; i < 32; ++i) values[i] = -3.0f - static_cast<float>(i) / 31.0f * 3.0f;
  Row cpu(32, format, DType::kF32), gpu(32, format, DType::kF32);
  encode_affine_parity(values, format, DType::kF32, ParityRule::kCpu, cpu.view());
  encode_affine_parity(values, format, DType::kF32, ParityRule::kGpu, gpu.view());
  EXPECT_FLOAT_EQ(parameters_f32(cpu).scale, 1.0f);
  EXPECT_FLOAT_EQ(parameters_f32(gpu).scale, 2.0f);
  EXPECT_EQ(parameters_f32(gpu).bias, -6.0f);
}

// Ties go to even under one rule and away from zero under the other; the error is the same.
TEST(AffineParity, RulesDifferAtTiesOnly) {
  const QuantFormat format{QuantMode::kAffine, 3, 32};
  std::vector<float> values(32, -4.0f);
  values[1] = 3.0f;   // scale 1, codes w + 4
  values[2] = -3.5f;  // 0.5: to 0 or to 1
  values[3] = -2.5f;  // 1.5: to 2 by both
  Row cpu(32, format, DType::kF32), gpu(32, format, DType::kF32);
  encode_affine_parity(values, format, DType::kF32, ParityRule::kCpu, cpu.view());
  encode_affine_parity(values, format, DType::kF32, ParityRule::kGpu, gpu.view());
  uint8_t a[32], b[32];
  unpack_codes(cpu.weight, 3, a);
  unpack_codes(gpu.weight, 3, b);
  EXPECT_EQ(a[2], 0);
  EXPECT_EQ(b[2], 1);
  EXPECT_EQ(a[3], 2);
  EXPECT_EQ(b[3], 2);
  EXPECT_EQ(affine_row_error(values, std::as_const(cpu).view(), format, DType::kF32),
            affine_row_error(values, std::as_const(gpu).view(), format, DType::kF32));
}

// ---- packing ----

TEST(AffinePacking, IsALittleEndianBitStream) {
  const std::vector<uint8_t> codes = {1, 2, 3, 4, 5, 6, 7, 0};
  std::vector<std::byte> packed(3);
  pack_codes(codes, 3, packed);
  // 000 111 110 101 100 011 010 001 from the highest bit down.
  EXPECT_EQ(packed, (std::vector{std::byte{0xd1}, std::byte{0x58}, std::byte{0x1f}}));
}

TEST(AffinePacking, UnpackUndoesPack) {
  std::mt19937 random(5);
  for (const unsigned bits : {2u, 3u, 4u, 5u, 6u, 8u})
    for (const size_t count : {8u, 32u, 128u, 1000u}) {
      std::vector<uint8_t> codes(count), back(count);
      for (uint8_t& c : codes) c = static_cast<uint8_t>(random() & ((1u << bits) - 1));
      std::vector<std::byte> packed(count / 8 * bits);
      pack_codes(codes, bits, packed);
      unpack_codes(packed, bits, back);
      EXPECT_EQ(codes, back) << bits << " bits";
    }
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

// Half a step, plus what storing the scale in dtype moves the farthest code by.
TEST(AffineParity, ErrorIsBounded) {
  std::mt19937_64 random(11);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (size_t index = 0; index < kAffineCandidates; ++index) {
      const QuantFormat format = affine_candidate_format(index);
      std::vector<float> values = random_row(random, 1024, dtype), decoded(1024);
      Row row(1024, format, dtype);
      encode_affine_parity(values, format, dtype, ParityRule::kCpu, row.view());
      decode_affine(std::as_const(row).view(), format, dtype, decoded);
      const double storage = dtype == DType::kF32   ? 0x1p-24
                             : dtype == DType::kF16 ? 0x1p-11
                                                    : 0x1p-9;
      for (size_t g = 0; g < 1024; g += format.group_size) {
        float low = values[g], high = values[g];
        for (size_t i = g; i < g + format.group_size; ++i) {
          low = std::min(low, values[i]);
          high = std::max(high, values[i]);
        }
        // MLX stretches or shrinks the step until zero is a code: by less than a third at 2 bits.
        const double step = (double{high} - low) / ((1 << format.bits) - 1);
        const double bound = step * 1.01 + (double{high} - low) * 1.4 * storage + 1.1e-7;
        for (size_t i = g; i < g + format.group_size; ++i)
          ASSERT_LE(std::fabs(double{decoded[i]} - values[i]), bound)
              << format_text(format) << " element " << i;
      }
    }
}

TEST(AffineBest, NoGroupIsWorseThanParity) {
  const uint64_t seed = 77;
  std::mt19937_64 random(seed);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (size_t index = 0; index < kAffineCandidates; ++index) {
      const QuantFormat format = affine_candidate_format(index);
      for (int round = 0; round < 8; ++round) {
        const std::vector<float> values = random_row(random, 512, dtype);
        Row parity(512, format, dtype), best(512, format, dtype);
        encode_affine_parity(values, format, dtype, ParityRule::kCpu, parity.view());
        encode_affine_best(values, format, dtype, best.view());
        std::vector<float> a(512), b(512);
        decode_affine(std::as_const(parity).view(), format, dtype, a);
        decode_affine(std::as_const(best).view(), format, dtype, b);
        for (size_t g = 0; g < 512; g += format.group_size) {
          // Summed backwards on purpose: the promise must not hang on the order.
          double parity_error = 0, best_error = 0;
          for (size_t i = g + format.group_size; i-- > g;) {
            parity_error += (double{a[i]} - values[i]) * (double{a[i]} - values[i]);
            best_error += (double{b[i]} - values[i]) * (double{b[i]} - values[i]);
          }
          ASSERT_LE(best_error, parity_error) << format_text(format) << " seed " << seed;
        }
      }
    }
}

// Scales that parity would store as infinity are replaced wherever a finite contender exists.
TEST(AffineBest, StoresFiniteParameters) {
  const QuantFormat format{QuantMode::kAffine, 2, 32};
  std::vector<float> values(32);
  for (size_t i = 0; i < 32; ++i) values[i] = i % 2 ? 65504.0f : -65504.0f;
  Row row(32, format, DType::kF16);
  encode_affine_best(values, format, DType::kF16, row.view());
  std::vector<float> decoded(32);
  decode_affine(std::as_const(row).view(), format, DType::kF16, decoded);
  for (const float x : decoded) EXPECT_TRUE(std::isfinite(x));
}

// The gains of the search on bell-shaped weights, in dB over parity; the figures are those measured
// when the starts were chosen, less a tenth.
TEST(AffineBest, GainsOverParity) {
  constexpr double kGains[kAffineCandidates] = {1.64, 1.73, 2.03, 1.30, 1.12, 1.18,
                                                1.15, 0.82, 0.65, 1.10, 0.73, 0.49,
                                                1.10, 0.72, 0.45, 2.85, 2.35, 1.95};
  std::mt19937_64 random(3);
  std::normal_distribution<float> bell(0, 0.02f);
  std::vector<float> values(1 << 15);
  for (float& x : values) x = rounded(bell(random), DType::kBF16);
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    const QuantFormat format = affine_candidate_format(index);
    Row row(values.size(), format, DType::kBF16);
    encode_affine_parity(values, format, DType::kBF16, ParityRule::kCpu, row.view());
    const auto parity = affine_row_error(values, std::as_const(row).view(), format, DType::kBF16);
    encode_affine_best(values, format, DType::kBF16, row.view());
    const auto best = affine_row_error(values, std::as_const(row).view(), format, DType::kBF16);
    EXPECT_GE(sqnr_db(best) - sqnr_db(parity), kGains[index]) << format_text(format);
  }
}

// ---- pricing, errors, refusal ----

TEST(AffinePrice, AgreesWithTheParityEncoder) {
  std::mt19937_64 random(21);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (const size_t columns : {32u, 192u, 4224u}) {
      std::normal_distribution<float> bell(0, 0.02f);
      std::vector<float> values(columns);
      for (float& x : values) x = rounded(bell(random), dtype);
      const AffinePrices prices = price_affine_row(values, dtype);
      for (size_t index = 0; index < kAffineCandidates; ++index) {
        const QuantFormat format = affine_candidate_format(index);
        if (columns % format.group_size != 0) {
          EXPECT_EQ(prices.squared_error[index], kInf);
          EXPECT_EQ(prices.error_max[index], kInf);
          continue;
        }
        Row row(columns, format, dtype);
        encode_affine_parity(values, format, dtype, ParityRule::kCpu, row.view());
        const auto exact = affine_row_error(values, std::as_const(row).view(), format, dtype);
        // A few near-ties fall the other way, which weighs more the fewer elements there are.
        const double bound = columns < 1000 ? 0.05 : 1e-3;
        EXPECT_NEAR(prices.squared_error[index] / exact.squared_error, 1, bound)
            << dtype_info(dtype).name << " " << format_text(format) << " " << columns;
        // A code near a tie is off by what f32 loses of a code: 255·2⁻²⁴ of a step, and its like.
        EXPECT_GE(prices.error_max[index], exact.error_max * (1 - 1e-4));
        EXPECT_LE(prices.error_max[index], exact.error_max * 2.5);
        EXPECT_NEAR(prices.squared_weight / exact.squared_weight, 1, 1e-6);
      }
    }
}

TEST(AffinePrice, AgreesWithTheBestEncoder) {
  std::mt19937_64 random(22);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (size_t index = 0; index < kAffineCandidates; ++index) {
      const QuantFormat format = affine_candidate_format(index);
      std::normal_distribution<float> bell(0, 0.02f);
      std::vector<float> values(4224);
      for (float& x : values) x = rounded(bell(random), dtype);
      Row row(values.size(), format, dtype);
      encode_affine_best(values, format, dtype, row.view());
      const auto exact = affine_row_error(values, std::as_const(row).view(), format, dtype);
      const BestPrice price = price_affine_best_row(values, format, dtype);
      EXPECT_NEAR(price.squared_error / exact.squared_error, 1, 1e-3) << format_text(format);
      EXPECT_GE(price.error_max, exact.error_max * (1 - 1e-5));
      EXPECT_LE(price.error_max, exact.error_max * 1.5);
    }
}

TEST(AffinePrice, ZeroRowCostsNothing) {
  const BestPrice best =
      price_affine_best_row(std::vector<float>(256), affine_candidate_format(3), DType::kBF16);
  EXPECT_EQ(best.squared_error, 0);
  EXPECT_EQ(best.error_max, 0);
  const AffinePrices prices = price_affine_row(std::vector<float>(256), DType::kBF16);
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    EXPECT_EQ(prices.squared_error[index], 0);
    EXPECT_LE(prices.error_max[index], 1e-7);  // what rounding loses of the smallest scale
  }
}

TEST(AffineFindUnencodable, NamesTheFirst) {
  std::vector<float> row(300, 1.0f);
  EXPECT_EQ(find_unencodable(row), 300u);
  row[200] = std::nanf("");
  EXPECT_EQ(find_unencodable(row), 200u);
  row[150] = -kInf;
  EXPECT_EQ(find_unencodable(row), 150u);
  row[130] = 3e38f;
  row[131] = -3e38f;
  row[150] = 1;
  row[200] = 1;
  EXPECT_EQ(find_unencodable(row), 128u);
  EXPECT_EQ(find_unencodable({}), 0u);
}

}  // namespace
}  // namespace sluice::numerics
