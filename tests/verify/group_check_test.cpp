// The fast group check against the scalar reference, bit for bit: every width, group, type, rule
// and instruction set of this processor, over weights of every character. It must acquit exactly
// what the reference writes, and its figures must be the reference's.
#include "verify/group_check.h"

#include <gmock/gmock.h>

#include <bit>
#include <cstring>

#include "base/cpu.h"
#include "numerics/affine.h"
#include "numerics/affine_price.h"
#include "support/affine_rows.h"

namespace sluice::verify {
namespace {

using numerics::AffineRow;
using numerics::ConstAffineRow;
using numerics::DType;
using numerics::ErrorStats;
using numerics::ParityRule;
using numerics::QuantFormat;

struct NamedCheck {
  const char* name;
  GroupCheck check;
};

std::vector<NamedCheck> checks() {
  std::vector<NamedCheck> list{{"baseline", baseline_group_check()}};
  const CpuInfo cpu = detect_cpu();
  if (parse_simd_level("avx2", cpu)) list.push_back({"avx2", avx2_group_check()});
  if (parse_simd_level("avx512", cpu)) list.push_back({"avx512", avx512_group_check()});
  return list;
}

StoredType stored_type(DType dtype) {
  if (dtype == DType::kF32) return StoredType::kF32;
  return dtype == DType::kF16 ? StoredType::kF16 : StoredType::kBF16;
}

// Groups of one format, encoded in one run of memory.
struct Encoded {
  QuantFormat format;
  DType dtype;
  std::vector<std::byte> weight, scales, biases;

  Encoded(const QuantFormat& wanted, DType type, size_t columns)
      : format(wanted),
        dtype(type),
        weight(columns / 8 * wanted.bits),
        scales(columns / wanted.group_size * (type == DType::kF32 ? 4 : 2)),
        biases(scales) {}

  AffineRow view() { return {weight, scales, biases}; }
  size_t groups() const { return weight.size() * 8 / format.bits / format.group_size; }
  // Bytes of one group in each part.
  ConstAffineRow group(size_t g) const {
    const size_t packed = weight.size() / groups(), stored = scales.size() / groups();
    return {std::span(weight).subspan(g * packed, packed),
            std::span(scales).subspan(g * stored, stored),
            std::span(biases).subspan(g * stored, stored)};
  }
};

std::vector<GroupFigures> run(GroupCheck check, std::span<const float> row, const Encoded& encoded,
                              Proof proof) {
  const auto raw = [](const std::vector<std::byte>& bytes) {
    return reinterpret_cast<const uint8_t*>(bytes.data());
  };
  std::vector<GroupFigures> figures(encoded.groups());
  check(
      {row.data(), raw(encoded.weight), raw(encoded.scales), raw(encoded.biases), encoded.groups(),
       encoded.format.bits, encoded.format.group_size, stored_type(encoded.dtype)},
      proof, figures.data());
  return figures;
}

bool same_number(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

// Holds all that one call says against the reference, group by group.
void expect_reference(const NamedCheck& check, std::span<const float> row, const Encoded& found,
                      Proof proof) {
  const ParityRule rule = proof == Proof::kParityGpu ? ParityRule::kGpu : ParityRule::kCpu;
  Encoded expected(found.format, found.dtype, row.size());
  encode_affine_parity(row, found.format, found.dtype, rule, expected.view());
  const std::vector<GroupFigures> figures = run(check.check, row, found, proof);
  const size_t size = found.format.group_size;
  for (size_t g = 0; g < figures.size(); ++g) {
    SCOPED_TRACE(fmt::format("{} {} group {} of {}", check.name, format_text(found.format), g,
                             figures.size()));
    const std::span<const float> source = row.subspan(g * size, size);
    const ErrorStats wanted = affine_row_error(source, found.group(g), found.format, found.dtype);
    ASSERT_TRUE(same_number(figures[g].squared_error, wanted.squared_error));
    ASSERT_TRUE(same_number(figures[g].squared_weight, wanted.squared_weight));
    ASSERT_TRUE(same_number(figures[g].error_max, wanted.error_max));
    const ConstAffineRow a = expected.group(g), b = found.group(g);
    const bool same =
        equal(a.weight, b.weight) && equal(a.scales, b.scales) && equal(a.biases, b.biases);
    const bool parity = proof == Proof::kParityCpu || proof == Proof::kParityGpu;
    ASSERT_EQ(figures[g].same, !parity || same);
    if (proof != Proof::kNotWorse) continue;
    const ErrorStats mlx = affine_row_error(source, a, found.format, found.dtype);
    ASSERT_TRUE(same_number(figures[g].parity_error, mlx.squared_error))
        << figures[g].parity_error << " " << mlx.squared_error;
  }
}

void flip(std::vector<std::byte>& bytes, std::mt19937_64& random) {
  bytes[random() % bytes.size()] ^= std::byte{1} << (random() % 8);
}

// Encoded as MLX does, by the search, then damaged in one bit and in many.
void expect_all(std::span<const float> row, const QuantFormat& format, DType dtype,
                std::mt19937_64& random) {
  Encoded cpu(format, dtype, row.size()), gpu = cpu, best = cpu;
  encode_affine_parity(row, format, dtype, ParityRule::kCpu, cpu.view());
  encode_affine_parity(row, format, dtype, ParityRule::kGpu, gpu.view());
  encode_affine_best(row, format, dtype, best.view());
  Encoded code = cpu, scale = gpu, bias = cpu, noise = cpu;
  flip(code.weight, random);
  flip(scale.scales, random);
  flip(bias.biases, random);
  for (size_t i = 0; i < noise.weight.size(); ++i) flip(noise.weight, random);
  for (const NamedCheck& check : checks()) {
    expect_reference(check, row, cpu, Proof::kParityCpu);
    expect_reference(check, row, gpu, Proof::kParityGpu);
    expect_reference(check, row, cpu, Proof::kParityGpu);
    expect_reference(check, row, best, Proof::kNotWorse);
    expect_reference(check, row, best, Proof::kNone);
    expect_reference(check, row, code, Proof::kParityCpu);
    expect_reference(check, row, scale, Proof::kParityGpu);
    expect_reference(check, row, bias, Proof::kParityCpu);
    expect_reference(check, row, noise, Proof::kParityCpu);
    expect_reference(check, row, noise, Proof::kNotWorse);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST(GroupCheck, EqualsTheReferenceOnWeightsOfEveryCharacter) {
  std::mt19937_64 random(20261121);
  for (const DType dtype : kTypes)
    for (size_t index = 0; index < numerics::kAffineCandidates; ++index)
      for (const size_t groups : {1u, 7u, 37u})
        for (const bool rounded : {true, false}) {
          const QuantFormat format = numerics::affine_candidate_format(index);
          const auto row = test::make_row(random, groups * format.group_size, dtype, rounded);
          expect_all(row, format, dtype, random);
          if (HasFatalFailure()) return;
        }
}

TEST(GroupCheck, EqualsTheReferenceOnTies) {
  std::mt19937_64 random(7);
  for (const DType dtype : kTypes)
    for (size_t index = 0; index < numerics::kAffineCandidates; ++index)
      for (const float sign : {1.0f, -1.0f})
        for (const float step : {1.0f, 0.125f, 0.0625f * 1.5f}) {
          const QuantFormat format = numerics::affine_candidate_format(index);
          const auto row = test::make_ties(random, 9 * format.group_size, format.group_size,
                                           format.bits, step, sign);
          expect_all(row, format, dtype, random);
          if (HasFatalFailure()) return;
        }
}

// Overflowing products, vanishing scales, subnormal scales, offsets far larger than the range.
TEST(GroupCheck, EqualsTheReferenceAtTheEndsOfFloats) {
  std::mt19937_64 random(9);
  for (const DType dtype : kTypes)
    for (size_t index = 0; index < numerics::kAffineCandidates; index += 2)
      for (const float size : {3e38f, 1e35f, 1e20f, 6e4f, 1e-30f, 1e-38f, 1e-44f})
        for (const float offset : {0.0f, 0.25f, -0.5f, 1000.0f}) {
          const QuantFormat format = numerics::affine_candidate_format(index);
          std::vector<float> row(18 * format.group_size);
          for (float& x : row) {
            x = offset + static_cast<float>(random() % 1000) / 1000.0f;
            x = offset == 1000.0f ? x * (size / 2000.0f) : x * (size / 2.0f);
          }
          if (numerics::find_unencodable(row) != row.size()) continue;
          expect_all(row, format, dtype, random);
          if (HasFatalFailure()) return;
        }
  const std::vector<float> constant(128, 3.2e31f);
  expect_all(constant, {numerics::QuantMode::kAffine, 8, 128}, DType::kBF16, random);
}

// Scales and biases of every bit pattern: figures are the reference's, whatever was stored.
TEST(GroupCheck, MeasuresWhateverIsStored) {
  std::mt19937_64 random(11);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const QuantFormat format{numerics::QuantMode::kAffine, 3, 32};
    const size_t groups = 65536;
    const auto row = test::make_row(random, groups * 32, dtype, true);
    Encoded found(format, dtype, row.size());
    encode_affine_parity(row, format, dtype, ParityRule::kCpu, found.view());
    for (size_t i = 0; i < groups; ++i) {
      const uint16_t bits = static_cast<uint16_t>(i);
      std::memcpy(found.scales.data() + 2 * i, &bits, 2);
      std::memcpy(found.biases.data() + 2 * (groups - 1 - i), &bits, 2);
    }
    for (const NamedCheck& check : checks()) {
      expect_reference(check, row, found, Proof::kParityCpu);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(GroupCheck, IsBuiltForThisProcessor) {
  for (const NamedCheck& check : checks()) EXPECT_NE(check.check, nullptr) << check.name;
}

}  // namespace
}  // namespace sluice::verify
