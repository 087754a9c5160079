#include "verify/fp_proof.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "numerics/affine.h"
#include "numerics/float_types.h"
#include "verify/block_rows.h"

namespace sluice::verify {
namespace {

using numerics::ConstFpRow;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::QuantFormat;
using numerics::QuantMode;

constexpr size_t kGroupMax = 32;

std::span<const float> row_values(const FpBlock& block, uint64_t row) {
  const uint64_t columns = block.block.module.columns();
  return block.values.subspan(row * columns, columns);
}

float rounded(float value, DType dtype) {
  switch (dtype) {
    case DType::kBF16: return numerics::bf16_to_f32(numerics::f32_to_bf16(value));
    case DType::kF16: return numerics::f16_to_f32(numerics::f32_to_f16(value));
    default: return value;
  }
}

uint8_t e2m1_code(float a) {
  return static_cast<uint8_t>((a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f) + (a > 2.5f) +
                              (a > 3.5f) + (a > 5.0f));
}

// What MLX's rule gives one group, in a form that is quick and knows ordinary groups alone.
struct GroupParity {
  bool ordinary = false;  // otherwise nothing else is set, and the reference decides
  uint8_t scale = 0;
  uint8_t codes[kGroupMax] = {};
};

GroupParity quick_parity(std::span<const float> group, const QuantFormat& format, DType dtype) {
  GroupParity parity;
  float size = 0;
  for (const float w : group) size = std::fabs(w) > size ? std::fabs(w) : size;
  const float s = rounded(size / (format.mode == QuantMode::kMxfp8 ? 448.0f : 6.0f), dtype);
  float scale = 1;
  if (format.mode == QuantMode::kNvfp4) {
    parity.scale = numerics::nearest_e4m3(s);
    scale = numerics::e4m3_value(parity.scale);
    if (scale == 0 || size > scale * 0x1p20f) return parity;
  } else if (s == 0) {
    parity.scale = 127;
  } else {
    if (s < std::numeric_limits<float>::min()) return parity;
    const uint32_t bits = std::bit_cast<uint32_t>(s);
    parity.scale = static_cast<uint8_t>((bits >> 23) + ((bits & 0x7fffffu) != 0));
    scale = std::bit_cast<float>(uint32_t{parity.scale} << 23);
  }
  for (size_t i = 0; i < group.size(); ++i) {
    const float quotient = group[i] / scale;
    if (format.mode == QuantMode::kMxfp8) {
      parity.codes[i] = numerics::nearest_e4m3(quotient);
      continue;
    }
    const float a = std::fabs(quotient);
    const uint8_t code = e2m1_code(format.mode == QuantMode::kNvfp4 ? rounded(a, dtype) : a);
    parity.codes[i] = group[i] < 0 && code != 0 ? code | 8u : code;
  }
  parity.ordinary = true;
  return parity;
}

}  // namespace

FpProof::FpProof() {
  for (size_t code = 0; code < 256; ++code)
    e4m3_values_[code] = numerics::e4m3_value(static_cast<uint8_t>(code));
  constexpr float kSizes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (size_t code = 0; code < 8; ++code) {
    e2m1_values_[code] = kSizes[code];
    e2m1_values_[code + 8] = -kSizes[code];
  }
}

// The squared error of one group, summed as numerics::fp_row_error sums it.
double FpProof::group_error(std::span<const float> group, uint8_t scale_byte, const uint8_t* codes,
                            const QuantFormat& format, double* error_max) const {
  const float scale = format.mode == QuantMode::kNvfp4 ? e4m3_values_[scale_byte]
                                                       : std::ldexp(1.0f, scale_byte - 127);
  const float* values = format.mode == QuantMode::kMxfp8 ? e4m3_values_ : e2m1_values_;
  double sum = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    const float decoded = values[codes[i]] * scale;
    const double error = static_cast<double>(decoded) - static_cast<double>(group[i]);
    sum += error * error;
    if (error_max && std::fabs(error) > *error_max) *error_max = std::fabs(error);
  }
  return sum;
}

// Adds the row's error to stats. Whether the row is proved; if not, the reference decides.
bool FpProof::acquits(const FpBlock& block, std::span<const float> source, const ConstFpRow& found,
                      ErrorStats& stats) {
  const QuantFormat& format = block.planned.format;
  const size_t size = format.group_size;
  codes_.resize(source.size());
  numerics::unpack_codes(found.weight, format.bits, codes_);
  ErrorStats row;
  bool proved = true;
  for (size_t g = 0; g < found.scales.size(); ++g) {
    const std::span<const float> group = source.subspan(g * size, size);
    const uint8_t* codes = codes_.data() + g * size;
    const auto scale = static_cast<uint8_t>(found.scales[g]);
    const double error = group_error(group, scale, codes, format, &row.error_max);
    row.squared_error += error;
    double squared_weight = 0;
    for (const float w : group) squared_weight += static_cast<double>(w) * static_cast<double>(w);
    row.squared_weight += squared_weight;
    if (block.planned.encoder == Encoder::kLossless) {
      proved = proved && error == 0;
      continue;
    }
    const GroupParity parity = quick_parity(group, format, block.dtype);
    const bool same =
        parity.ordinary && parity.scale == scale && std::equal(codes, codes + size, parity.codes);
    const bool no_worse =
        same || (block.planned.encoder == Encoder::kBest && parity.ordinary &&
                 error <= group_error(group, parity.scale, parity.codes, format, nullptr));
    proved = proved && no_worse;
  }
  stats.merge(row);
  return proved;
}

ConstFpRow FpProof::encode_row(const FpBlock& block, uint64_t row) {
  const uint64_t columns = block.block.module.columns();
  weight_.resize(columns / 8 * block.planned.format.bits);
  scales_.resize(columns / block.planned.format.group_size);
  numerics::encode_fp_parity(row_values(block, row), block.planned.format, block.dtype,
                             {weight_, scales_});
  return {weight_, scales_};
}

void FpProof::check_reencoding(const FpBlock& block, uint64_t row, const ConstFpRow& found,
                               Findings& findings) {
  const ConstFpRow expected = encode_row(block, row);
  const auto compare = [&](std::string_view part, std::span<const std::byte> wanted,
                           std::span<const std::byte> actual) {
    if (equal_bytes(wanted, actual)) return;
    findings.add(
        fmt::format("{}.{}", block.block.module.path, part),
        fmt::format("{} differs from the source encoded anew", place_text(block.block, row)));
  };
  compare(block.block.module.parameter, expected.weight, found.weight);
  compare("scales", expected.scales, found.scales);
}

// Every group of a searched encoding must be at least as close as MLX's own.
void FpProof::check_not_worse(const FpBlock& block, uint64_t row, const ConstFpRow& found,
                              Findings& findings) {
  const std::span<const float> source = row_values(block, row);
  decoded_.resize(source.size());
  parity_.resize(source.size());
  numerics::decode_fp(found, block.planned.format, decoded_);
  numerics::decode_fp(encode_row(block, row), block.planned.format, parity_);
  const size_t group = block.planned.format.group_size;
  for (size_t start = 0; start < source.size(); start += group) {
    const auto error = [&](std::span<const float> all) {
      return numerics::error_between(source.subspan(start, group), all.subspan(start, group))
          .squared_error;
    };
    const double ours = error(decoded_), parity = error(parity_);
    // Where MLX wraps a scale around, its own encoding has no finite error to hold ours against.
    if (ours <= parity || (std::isfinite(ours) && !std::isfinite(parity))) continue;
    findings.add(block.block.module.tensor_name(),
                 fmt::format("{}, columns from {}: squared error {:.6g} exceeds {:.6g} of MLX's "
                             "own encoding",
                             place_text(block.block, row), start, ours, parity));
    return;
  }
}

void FpProof::check_lossless(const FpBlock& block, uint64_t row, const ConstFpRow& found,
                             Findings& findings) {
  const std::span<const float> source = row_values(block, row);
  decoded_.resize(source.size());
  numerics::decode_fp(found, block.planned.format, decoded_);
  const auto [expected, decoded] = std::ranges::mismatch(source, decoded_);
  if (expected == source.end()) return;
  findings.add(
      block.block.module.tensor_name(),
      fmt::format("{}, column {}: a lossless copy should decode to {}, gives {}",
                  place_text(block.block, row), expected - source.begin(), *expected, *decoded));
}

ErrorStats FpProof::check(const FpBlock& block, Findings& findings) {
  const uint64_t rows = block.block.block.rows;
  ErrorStats stats;
  for (uint64_t row = 0; row < rows; ++row) {
    const ConstFpRow found{row_of(block.found.weight, row, rows),
                           row_of(block.found.scales, row, rows)};
    if (acquits(block, row_values(block, row), found, stats)) continue;
    if (block.planned.encoder == Encoder::kParity) check_reencoding(block, row, found, findings);
    if (block.planned.encoder == Encoder::kBest) check_not_worse(block, row, found, findings);
    if (block.planned.encoder == Encoder::kLossless) check_lossless(block, row, found, findings);
  }
  return stats;
}

}  // namespace sluice::verify
