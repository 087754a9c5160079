#include "kernels/kernel_table.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/raw_ops.h"

namespace sluice::kernels {
namespace {

using numerics::AffineRow;
using numerics::ConstAffineRow;
using numerics::DType;
using numerics::ErrorStats;
using numerics::QuantFormat;
using numerics::QuantMode;

Element element_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return kElementF32;
    case DType::kF16: return kElementF16;
    case DType::kBF16: return kElementBF16;
    default: break;
  }
  SLUICE_CHECK(!"an affine row's dtype is f32, f16 or bf16");
  return kElementF32;
}

size_t element_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

RawFormat checked_format(size_t columns, const QuantFormat& format, DType dtype) {
  SLUICE_CHECK(format.mode == QuantMode::kAffine);
  SLUICE_CHECK(std::ranges::count(numerics::kAffineBits, format.bits) == 1);
  SLUICE_CHECK(std::ranges::count(numerics::kAffineGroups, format.group_size) == 1);
  SLUICE_CHECK(columns % format.group_size == 0);
  return {format.bits, format.group_size, element_of(dtype)};
}

template <class Row>
RawFormat checked_row(size_t columns, const Row& row, const QuantFormat& format, DType dtype) {
  const RawFormat raw = checked_format(columns, format, dtype);
  SLUICE_CHECK(row.weight.size() == columns / 8 * format.bits);
  SLUICE_CHECK(row.scales.size() == columns / format.group_size * element_bytes(dtype));
  SLUICE_CHECK(row.biases.size() == row.scales.size());
  return raw;
}

uint8_t* raw_bytes(std::span<std::byte> bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }
const uint8_t* raw_bytes(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}
RawRow raw_row(const AffineRow& row) {
  return {raw_bytes(row.weight), raw_bytes(row.scales), raw_bytes(row.biases)};
}
ConstRawRow raw_row(const ConstAffineRow& row) {
  return {raw_bytes(row.weight), raw_bytes(row.scales), raw_bytes(row.biases)};
}
ErrorStats from_raw(const RawStats& stats) {
  return {stats.squared_error, stats.squared_weight, stats.error_max};
}

KernelTable make_table(SimdLevel level, const RawOps* ops, const RawFpOps* fp_ops) {
  if (ops == nullptr) return KernelTable(SimdLevel::kScalar, scalar_ops(), scalar_fp_ops());
  return KernelTable(level, ops, fp_ops);
}

FpMode fp_mode_of(const QuantFormat& format) {
  SLUICE_CHECK(numerics::is_fp(format));
  if (format.mode == QuantMode::kMxfp4) return kFpMxfp4;
  return format.mode == QuantMode::kMxfp8 ? kFpMxfp8 : kFpNvfp4;
}

template <class Row>
void check_fp_row(size_t columns, const Row& row, const QuantFormat& format) {
  SLUICE_CHECK(columns % format.group_size == 0);
  SLUICE_CHECK(row.weight.size() == columns / 8 * format.bits);
  SLUICE_CHECK(row.scales.size() == columns / format.group_size);
}

constexpr QuantFormat affine(uint8_t bits, uint16_t group) {
  return {QuantMode::kAffine, bits, group};
}
constexpr QuantFormat kDefaultBest[] = {
    affine(2, 32),  affine(2, 64), affine(2, 128), affine(3, 32),  affine(3, 64),
    affine(3, 128), affine(4, 32), affine(4, 64),  affine(4, 128), numerics::kFpFormats[0]};

}  // namespace

void KernelTable::decode_floats(DType dtype, std::span<const std::byte> in,
                                std::span<float> out) const {
  SLUICE_CHECK(in.size() == out.size() * element_bytes(dtype));
  ops_->decode_floats(element_of(dtype), raw_bytes(in), out.data(), out.size());
}

ErrorStats KernelTable::encode_affine_parity(std::span<const float> row, const QuantFormat& format,
                                             DType dtype, numerics::ParityRule rule,
                                             const AffineRow& out) const {
  const RawFormat raw = checked_row(row.size(), out, format, dtype);
  return from_raw(ops_->encode_parity(row.data(), row.size(), raw,
                                      rule == numerics::ParityRule::kGpu, raw_row(out)));
}

ErrorStats KernelTable::encode_affine_best(std::span<const float> row, const QuantFormat& format,
                                           DType dtype, const AffineRow& out) const {
  const RawFormat raw = checked_row(row.size(), out, format, dtype);
  return from_raw(ops_->encode_best(row.data(), row.size(), raw, raw_row(out)));
}

void KernelTable::decode_affine(const ConstAffineRow& in, const QuantFormat& format, DType dtype,
                                std::span<float> out) const {
  const RawFormat raw = checked_row(out.size(), in, format, dtype);
  ops_->decode_affine(raw_row(in), out.size(), raw, out.data());
}

ErrorStats KernelTable::affine_row_error(std::span<const float> row, const ConstAffineRow& in,
                                         const QuantFormat& format, DType dtype) const {
  const RawFormat raw = checked_row(row.size(), in, format, dtype);
  return from_raw(ops_->row_error(row.data(), row.size(), raw_row(in), raw));
}

numerics::AffinePrices KernelTable::price_affine(std::span<const float> row, DType dtype) const {
  SLUICE_CHECK(!row.empty() && row.size() % 32 == 0);
  numerics::AffinePrices prices{};
  for (size_t index = 0; index < numerics::kAffineCandidates; ++index) {
    if (row.size() % numerics::affine_candidate_format(index).group_size == 0) continue;
    prices.squared_error[index] = std::numeric_limits<double>::infinity();
    prices.error_max[index] = std::numeric_limits<float>::infinity();
  }
  ops_->price_parity(row.data(), row.size(), element_of(dtype), prices.squared_error,
                     prices.error_max, &prices.squared_weight);
  return prices;
}

void KernelTable::price_best(std::span<const float> row, std::span<const QuantFormat> formats,
                             DType dtype, std::span<numerics::BestPrice> prices) const {
  constexpr size_t kMax = numerics::kAffineCandidates;
  SLUICE_CHECK(formats.size() == prices.size() && formats.size() <= kMax);
  for (const uint16_t group : numerics::kAffineGroups) {
    int bits[kMax];
    size_t places[kMax];
    double squared_error[kMax] = {};
    float error_max[kMax] = {};
    int count = 0;
    for (size_t i = 0; i < formats.size(); ++i) {
      if (formats[i].group_size != group) continue;
      bits[count] = checked_format(row.size(), formats[i], dtype).bits;
      places[count++] = i;
    }
    if (count == 0) continue;
    ops_->price_best(row.data(), row.size(), group, element_of(dtype), bits, count, squared_error,
                     error_max);
    for (int i = 0; i < count; ++i) prices[places[i]] = {squared_error[i], error_max[i]};
  }
}

ErrorStats KernelTable::encode_fp(std::span<const float> row, const QuantFormat& format,
                                  DType dtype, bool searched, const numerics::FpRow& out) const {
  const FpMode mode = fp_mode_of(format);
  const bool priced_only = out.weight.empty() && out.scales.empty();
  if (!priced_only) check_fp_row(row.size(), out, format);
  SLUICE_CHECK(row.size() % format.group_size == 0);
  RawStats stats{};
  if (fp_ops_->encode(row.data(), row.size(), mode, element_of(dtype), searched,
                      {raw_bytes(out.weight), raw_bytes(out.scales)}, &stats))
    return from_raw(stats);
  std::vector<std::byte> spare(priced_only ? row.size() / 8 * format.bits : 0);
  std::vector<std::byte> spare_scales(priced_only ? row.size() / format.group_size : 0);
  const numerics::FpRow to = priced_only ? numerics::FpRow{spare, spare_scales} : out;
  if (searched)
    numerics::encode_fp_best(row, format, dtype, to);
  else
    numerics::encode_fp_parity(row, format, dtype, to);
  return numerics::fp_row_error(row, {to.weight, to.scales}, format);
}

ErrorStats KernelTable::encode_fp_parity(std::span<const float> row, const QuantFormat& format,
                                         DType dtype, const numerics::FpRow& out) const {
  return encode_fp(row, format, dtype, false, out);
}

ErrorStats KernelTable::encode_fp_best(std::span<const float> row, const QuantFormat& format,
                                       DType dtype, const numerics::FpRow& out) const {
  return encode_fp(row, format, dtype, true, out);
}

void KernelTable::decode_fp(const numerics::ConstFpRow& in, const QuantFormat& format,
                            std::span<float> out) const {
  const FpMode mode = fp_mode_of(format);
  check_fp_row(out.size(), in, format);
  fp_ops_->decode({raw_bytes(in.weight), raw_bytes(in.scales)}, out.size(), mode, out.data());
}

ErrorStats KernelTable::fp_row_error(std::span<const float> row, const numerics::ConstFpRow& in,
                                     const QuantFormat& format) const {
  const FpMode mode = fp_mode_of(format);
  check_fp_row(row.size(), in, format);
  return from_raw(fp_ops_->row_error(row.data(), row.size(),
                                     {raw_bytes(in.weight), raw_bytes(in.scales)}, mode));
}

numerics::FpPrices KernelTable::price_fp(std::span<const float> row, DType dtype) const {
  SLUICE_CHECK(!row.empty() && row.size() % 16 == 0);
  numerics::FpPrices prices{};
  for (size_t index = 0; index < numerics::kFpCandidates; ++index) {
    if (row.size() % numerics::kFpFormats[index].group_size == 0) continue;
    prices.squared_error[index] = std::numeric_limits<double>::infinity();
    prices.error_max[index] = std::numeric_limits<float>::infinity();
  }
  fp_ops_->price(row.data(), row.size(), element_of(dtype), prices.squared_error, prices.error_max);
  return prices;
}

size_t KernelTable::find_unencodable(std::span<const float> row) const {
  return ops_->find_unencodable(row.data(), row.size());
}

const KernelTable& kernel_table(SimdLevel level) {
  static const KernelTable kScalar = make_table(SimdLevel::kScalar, scalar_ops(), scalar_fp_ops());
  static const KernelTable kNeon = make_table(SimdLevel::kNeon, neon_ops(), neon_fp_ops());
  static const KernelTable kAvx2 = make_table(SimdLevel::kAvx2, avx2_ops(), avx2_fp_ops());
  static const KernelTable kAvx512 = make_table(SimdLevel::kAvx512, avx512_ops(), avx512_fp_ops());
  switch (level) {
    case SimdLevel::kNeon: return kNeon;
    case SimdLevel::kAvx2: return kAvx2;
    case SimdLevel::kAvx512: return kAvx512;
    case SimdLevel::kScalar: break;
  }
  return kScalar;
}

std::span<const QuantFormat> default_best_formats() { return kDefaultBest; }

}  // namespace sluice::kernels
