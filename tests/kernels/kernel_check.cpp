// Holds every kernel of every instruction set this processor offers against the scalar reference,
// bit for bit. A plain program without a test library, so that the ARM build of it runs under qemu.
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/kernel_table.h"
#include "numerics/affine.h"
#include "numerics/affine_price.h"
#include "numerics/float_types.h"
#include "numerics/fp.h"
#include "support/affine_rows.h"
#include "support/seed.h"

namespace {

using namespace sluice;
using namespace sluice::numerics;
using kernels::KernelTable;
using test::make_row;

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr const char* kTypeNames[] = {"f32", "f16", "bf16"};

int failures = 0;

#define EXPECT_SAME(condition, ...)             \
  do {                                          \
    if (!(condition) && ++failures <= 20) {     \
      std::printf("MISMATCH %s: ", #condition); \
      std::printf(__VA_ARGS__);                 \
      std::printf("\n");                        \
    }                                           \
  } while (false)

size_t type_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

struct Row {
  std::vector<std::byte> weight, scales, biases;
  Row(size_t columns, const QuantFormat& format, DType dtype)
      : weight(columns / 8 * format.bits, std::byte{0xa5}),
        scales(columns / format.group_size * type_bytes(dtype), std::byte{0xa5}),
        biases(scales) {}
  AffineRow view() { return {weight, scales, biases}; }
  ConstAffineRow view() const { return {weight, scales, biases}; }
  bool operator==(const Row&) const = default;
};

bool same_bits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
bool same_stats(const ErrorStats& a, const ErrorStats& b) {
  return same_bits(a.squared_error, b.squared_error) &&
         same_bits(a.squared_weight, b.squared_weight) && same_bits(a.error_max, b.error_max);
}

void check_encoders(const KernelTable& table, std::span<const float> row, DType dtype,
                    const char* what) {
  std::vector<QuantFormat> formats;
  for (size_t index = 0; index < kAffineCandidates; ++index) {
    const QuantFormat format = affine_candidate_format(index);
    if (row.size() % format.group_size != 0) continue;
    for (int encoder = 0; encoder < 3; ++encoder) {
      Row expected(row.size(), format, dtype), got(row.size(), format, dtype);
      ErrorStats stats;
      if (encoder == 2) {
        encode_affine_best(row, format, dtype, expected.view());
        stats = table.encode_affine_best(row, format, dtype, got.view());
      } else {
        const ParityRule rule = encoder == 0 ? ParityRule::kCpu : ParityRule::kGpu;
        encode_affine_parity(row, format, dtype, rule, expected.view());
        stats = table.encode_affine_parity(row, format, dtype, rule, got.view());
      }
      const char* names[] = {"parity cpu", "parity gpu", "best"};
      EXPECT_SAME(expected == got, "%s encoder %s %s %zu columns", names[encoder], what,
                  format_text(format).c_str(), row.size());
      const ConstAffineRow encoded = std::as_const(expected).view();
      const ErrorStats wanted = affine_row_error(row, encoded, format, dtype);
      EXPECT_SAME(same_stats(wanted, stats), "%s encoder's stats %s %s", names[encoder], what,
                  format_text(format).c_str());
      EXPECT_SAME(same_stats(wanted, table.affine_row_error(row, encoded, format, dtype)),
                  "affine_row_error %s %s", what, format_text(format).c_str());
      std::vector<float> decoded(row.size()), fast(row.size());
      decode_affine(encoded, format, dtype, decoded);
      table.decode_affine(encoded, format, dtype, fast);
      EXPECT_SAME(std::memcmp(decoded.data(), fast.data(), row.size() * 4) == 0,
                  "decode_affine %s %s", what, format_text(format).c_str());
    }
    formats.push_back(format);
  }
  std::vector<BestPrice> prices(formats.size());
  table.price_best(row, formats, dtype, prices);
  for (size_t i = 0; i < formats.size(); ++i) {
    const BestPrice wanted = price_affine_best_row(row, formats[i], dtype);
    EXPECT_SAME(same_bits(prices[i].squared_error, wanted.squared_error) &&
                    same_bits(prices[i].error_max, wanted.error_max),
                "price_best %s %s: %.17g %g, reference %.17g %g", what,
                format_text(formats[i]).c_str(), prices[i].squared_error, prices[i].error_max,
                wanted.squared_error, wanted.error_max);
  }
}

void check_prices(const KernelTable& table, std::span<const float> row, DType dtype,
                  const char* what) {
  const AffinePrices expected = price_affine_row(row, dtype);
  const AffinePrices got = table.price_affine(row, dtype);
  EXPECT_SAME(same_bits(expected.squared_weight, got.squared_weight), "%s %zu columns", what,
              row.size());
  for (size_t i = 0; i < kAffineCandidates; ++i) {
    EXPECT_SAME(same_bits(expected.squared_error[i], got.squared_error[i]),
                "price %s %s %zu columns: %.17g, reference %.17g", what,
                format_text(affine_candidate_format(i)).c_str(), row.size(), got.squared_error[i],
                expected.squared_error[i]);
    EXPECT_SAME(same_bits(expected.error_max[i], got.error_max[i]), "price max %s %s", what,
                format_text(affine_candidate_format(i)).c_str());
  }
}

struct FpBytes {
  std::vector<std::byte> weight, scales;
  FpBytes(size_t columns, const QuantFormat& format)
      : weight(columns / 8 * format.bits, std::byte{0xa5}),
        scales(columns / format.group_size, std::byte{0xa5}) {}
  FpRow view() { return {weight, scales}; }
  ConstFpRow view() const { return {weight, scales}; }
  bool operator==(const FpBytes&) const = default;
};

// row: rounded to dtype, as the fp encoders want it.
void check_fp(const KernelTable& table, std::span<const float> row, DType dtype, const char* what) {
  for (const QuantFormat& format : kFpFormats) {
    if (row.size() % format.group_size != 0) continue;
    const std::string name = format_text(format);
    for (const bool best : {false, true}) {
      FpBytes expected(row.size(), format), got(row.size(), format);
      ErrorStats stats, price;
      if (best) {
        encode_fp_best(row, format, dtype, expected.view());
        stats = table.encode_fp_best(row, format, dtype, got.view());
        price = table.encode_fp_best(row, format, dtype, {});
      } else {
        encode_fp_parity(row, format, dtype, expected.view());
        stats = table.encode_fp_parity(row, format, dtype, got.view());
        price = table.encode_fp_parity(row, format, dtype, {});
      }
      EXPECT_SAME(expected.scales == got.scales, "%s scales, best %d %s %zu columns", name.c_str(),
                  best, what, row.size());
      EXPECT_SAME(expected.weight == got.weight, "%s weight, best %d %s %zu columns", name.c_str(),
                  best, what, row.size());
      const ConstFpRow encoded = std::as_const(expected).view();
      const ErrorStats wanted = fp_row_error(row, encoded, format);
      EXPECT_SAME(same_stats(wanted, stats), "%s stats, best %d %s", name.c_str(), best, what);
      EXPECT_SAME(same_stats(wanted, price), "%s price, best %d %s", name.c_str(), best, what);
      EXPECT_SAME(same_stats(wanted, table.fp_row_error(row, encoded, format)),
                  "fp_row_error %s %s", what, name.c_str());
    }
  }
  const FpPrices expected = price_fp_row(row, dtype), got = table.price_fp(row, dtype);
  for (size_t i = 0; i < kFpCandidates; ++i) {
    EXPECT_SAME(same_bits(expected.squared_error[i], got.squared_error[i]),
                "price %s %s %zu columns: %.17g, reference %.17g", what,
                format_text(kFpFormats[i]).c_str(), row.size(), got.squared_error[i],
                expected.squared_error[i]);
    EXPECT_SAME(same_bits(expected.error_max[i], got.error_max[i]), "price max %s %s", what,
                format_text(kFpFormats[i]).c_str());
  }
}

// Random bytes hold every code under every scale; NaNs may differ in sign and payload.
void check_decode_fp(const KernelTable& table, std::mt19937_64& random) {
  for (const QuantFormat& format : kFpFormats)
    for (const size_t columns : {32u, 96u, 512u, 65536u + 32u}) {
      FpBytes row(columns, format);
      for (std::byte& b : row.weight) b = static_cast<std::byte>(random());
      for (std::byte& b : row.scales) b = static_cast<std::byte>(random());
      std::vector<float> expected(columns), got(columns);
      decode_fp(std::as_const(row).view(), format, expected);
      table.decode_fp(std::as_const(row).view(), format, got);
      for (size_t i = 0; i < columns; ++i)
        EXPECT_SAME(std::bit_cast<uint32_t>(expected[i]) == std::bit_cast<uint32_t>(got[i]) ||
                        (std::isnan(expected[i]) && std::isnan(got[i])),
                    "decode_fp %s: %a, reference %a", format_text(format).c_str(),
                    static_cast<double>(got[i]), static_cast<double>(expected[i]));
    }
}

// Every bfloat16 pattern as a group's largest, which drives every scale byte and both kinds of
// special group.
void check_fp_scales(const KernelTable& table) {
  std::vector<float> row(32 * 256);
  for (uint32_t high = 0; high < 128; ++high) {
    for (uint32_t low = 0; low < 256; ++low) {
      const uint32_t bits = high << 8 | low;
      const float largest = bf16_to_f32(static_cast<uint16_t>(bits < 0x7f80 ? bits : 0x3f80));
      for (uint32_t i = 0; i < 32; ++i)
        row[low * 32 + i] = test::to_type(
            largest * (static_cast<float>(i % 2 ? 32 - i : i - 31.0) / 31), DType::kBF16);
    }
    check_fp(table, row, DType::kBF16, "scales bf16");
  }
}

// Every 16-bit pattern, at every remainder of the vector length.
void check_decode_floats(const KernelTable& table) {
  std::vector<uint16_t> bits(65536 + 13);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> out(bits.size());
  for (const DType dtype : {DType::kF16, DType::kBF16})
    for (size_t count = bits.size() - 16; count <= bits.size(); ++count) {
      table.decode_floats(dtype, std::as_bytes(std::span(bits).first(count)),
                          std::span(out).first(count));
      for (size_t i = 0; i < count; ++i) {
        const float expected = dtype == DType::kF16 ? f16_to_f32(bits[i]) : bf16_to_f32(bits[i]);
        EXPECT_SAME(std::bit_cast<uint32_t>(out[i]) == std::bit_cast<uint32_t>(expected) ||
                        (std::isnan(out[i]) && std::isnan(expected)),
                    "decode_floats of %04x", bits[i]);
      }
    }
}

void check_find_unencodable(const KernelTable& table, std::mt19937_64& random) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();
  for (int round = 0; round < 400; ++round) {
    std::vector<float> row = make_row(random, 1 + random() % 700, DType::kF32, false);
    const float bad[] = {kInf, -kInf, std::nanf(""), kMax, -kMax, kMax / 2};
    for (unsigned i = 0; i < random() % 4; ++i) row[random() % row.size()] = bad[random() % 6];
    EXPECT_SAME(table.find_unencodable(row) == find_unencodable(row), "find_unencodable");
  }
}

void check_table(const KernelTable& table, uint64_t seed) {
  std::mt19937_64 random(seed);
  check_decode_floats(table);
  check_find_unencodable(table, random);
  check_decode_fp(table, random);
  check_fp_scales(table);
  check_fp(table, make_row(random, 16, DType::kBF16, true), DType::kBF16, "one group");
  check_fp(table, make_row(random, 2096, DType::kF16, true), DType::kF16, "odd groups");
  for (const size_t columns : {32u, 64u, 96u, 128u, 160u, 384u, 896u, 1056u, 2048u, 2176u, 4160u})
    for (int type = 0; type < 3; ++type)
      for (int round = 0; round < 2; ++round) {
        const bool rounded = round == 0;
        const std::vector<float> row = make_row(random, columns, kTypes[type], rounded);
        check_encoders(table, row, kTypes[type], kTypeNames[type]);
        check_prices(table, row, kTypes[type], kTypeNames[type]);
        if (rounded) check_fp(table, row, kTypes[type], kTypeNames[type]);
      }
  // The ends of f32, which overflow products and sums on the way.
  for (const float size : {3e38f, 1e35f, 1e20f, 1e-30f, 1e-44f}) {
    std::vector<float> row(256);
    for (float& x : row) x = size * (static_cast<float>(random() % 1000) / 1000.0f);
    check_encoders(table, row, DType::kF32, "extreme f32");
    check_fp(table, row, DType::kF32, "extreme f32");
    check_encoders(table, row, DType::kBF16, "extreme bf16");
    check_prices(table, row, DType::kBF16, "extreme bf16");
  }
  std::vector<float> constant(128, 3.2e31f);
  check_encoders(table, constant, DType::kBF16, "vanishing scale");
  check_prices(table, constant, DType::kBF16, "vanishing scale");
}

}  // namespace

int main() {
  const uint64_t seed = test::seed();
  const CpuInfo cpu = detect_cpu();
  for (const SimdLevel level :
       {SimdLevel::kScalar, SimdLevel::kNeon, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    if (!parse_simd_level(simd_level_name(level), cpu)) continue;
    const KernelTable& table = kernels::kernel_table(level);
    const int before = failures;
    check_table(table, seed);
    std::printf("%s: %s\n", simd_level_name(table.level()).data(),
                failures == before ? "identical" : "DIFFERENT");
    EXPECT_SAME(table.level() == level, "kernels of %s were not built",
                simd_level_name(level).data());
  }
  return failures == 0 ? 0 : 1;
}
