#include "verify/affine_proof.h"

#include <algorithm>

#include "verify/block_rows.h"

namespace sluice::verify {
namespace {

using numerics::ConstAffineRow;
using numerics::DType;
using numerics::Encoder;
using numerics::ErrorStats;
using numerics::ParityRule;

constexpr size_t kGroupsAtOnce = 1024;  // enough to keep calls rare, small enough for the cache

GroupCheck widest_group_check(SimdLevel simd) {
  GroupCheck check = nullptr;
  if (simd == SimdLevel::kAvx512) check = avx512_group_check();
  if (simd == SimdLevel::kAvx2) check = avx2_group_check();
  return check != nullptr ? check : baseline_group_check();
}

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return StoredType::kF32;
    case DType::kF16: return StoredType::kF16;
    case DType::kBF16: return StoredType::kBF16;
    default: break;
  }
  SLUICE_CHECK(!"scales are f32, f16 or bf16");
}

Proof proof_of(const AffineBlock& block) {
  if (block.planned.encoder == Encoder::kBest) return Proof::kNotWorse;
  if (block.planned.encoder != Encoder::kParity) return Proof::kNone;
  return block.rule == ParityRule::kGpu ? Proof::kParityGpu : Proof::kParityCpu;
}

const uint8_t* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

StoredGroups groups_of(const AffineBlock& block) {
  const numerics::QuantFormat& format = block.planned.format;
  const size_t count = block.values.size() / format.group_size;
  const StoredType type = stored_type(block.dtype);
  const size_t stored_bytes = numerics::dtype_info(block.dtype).block_bytes;
  SLUICE_CHECK(block.values.size() % format.group_size == 0);
  SLUICE_CHECK(block.found.weight.size() == block.values.size() / 8 * format.bits);
  SLUICE_CHECK(block.found.scales.size() == count * stored_bytes);
  SLUICE_CHECK(block.found.biases.size() == count * stored_bytes);
  return {block.values.data(),
          raw(block.found.weight),
          raw(block.found.scales),
          raw(block.found.biases),
          count,
          format.bits,
          format.group_size,
          type};
}

StoredGroups part_of(const StoredGroups& all, size_t first, size_t count, size_t stored_bytes) {
  const size_t size = static_cast<size_t>(all.group_size);
  StoredGroups part = all;
  part.source += first * size;
  part.weight += first * (size / 8) * static_cast<size_t>(all.bits);
  part.scales += first * stored_bytes;
  part.biases += first * stored_bytes;
  part.count = count;
  return part;
}

bool acquits(Encoder encoder, const GroupFigures& group) {
  switch (encoder) {
    case Encoder::kParity: return group.same;
    case Encoder::kBest: return group.squared_error <= group.parity_error;
    case Encoder::kLossless: return group.squared_error == 0;
    case Encoder::kFeedback: return true;
    default: return false;
  }
}

}  // namespace

std::span<const float> AffineBlock::row_values(uint64_t row) const {
  const uint64_t columns = block.module.columns();
  return values.subspan(row * columns, columns);
}

ConstAffineRow AffineBlock::row_found(uint64_t row) const {
  const uint64_t rows = block.block.rows;
  return {row_of(found.weight, row, rows), row_of(found.scales, row, rows),
          row_of(found.biases, row, rows)};
}

AffineProof::AffineProof(SimdLevel simd)
    : group_check_(widest_group_check(simd)), figures_(kGroupsAtOnce) {}

ErrorStats AffineProof::check(const AffineBlock& block, Findings& findings) {
  const StoredGroups groups = groups_of(block);
  const Proof proof = proof_of(block);
  const size_t stored_bytes = numerics::dtype_info(block.dtype).block_bytes;
  const size_t row_groups = block.block.module.columns() / block.planned.format.group_size;
  ErrorStats stats, row_stats;
  bool row_acquitted = true;
  for (size_t first = 0; first < groups.count; first += kGroupsAtOnce) {
    const size_t count = std::min(kGroupsAtOnce, groups.count - first);
    group_check_(part_of(groups, first, count, stored_bytes), proof, figures_.data());
    for (size_t g = 0; g < count; ++g) {
      const GroupFigures& group = figures_[g];
      row_stats.merge({group.squared_error, group.squared_weight, group.error_max});
      row_acquitted = row_acquitted && acquits(block.planned.encoder, group);
      if ((first + g + 1) % row_groups != 0) continue;
      stats.merge(row_stats);
      if (!row_acquitted) check_row(block, (first + g) / row_groups, findings);
      row_stats = {};
      row_acquitted = true;
    }
  }
  return stats;
}

void AffineProof::check_row(const AffineBlock& block, uint64_t row, Findings& findings) {
  decoded_.resize(block.block.module.columns());
  numerics::decode_affine(block.row_found(row), block.planned.format, block.dtype, decoded_);
  if (block.planned.encoder == Encoder::kParity)
    compare_row(block, row, encode_row(block, row), findings);
  if (block.planned.encoder == Encoder::kBest) check_not_worse(block, row, findings);
  if (block.planned.encoder == Encoder::kLossless) check_lossless(block, row, findings);
}

ConstAffineRow AffineProof::encode_row(const AffineBlock& block, uint64_t row) {
  const ConstAffineRow found = block.row_found(row);
  weight_.resize(found.weight.size());
  scales_.resize(found.scales.size());
  biases_.resize(found.biases.size());
  numerics::encode_affine_parity(block.row_values(row), block.planned.format, block.dtype,
                                 block.rule, {weight_, scales_, biases_});
  return {weight_, scales_, biases_};
}

void AffineProof::compare(const AffineBlock& block, const ConstAffineRow& expected,
                          Findings& findings) const {
  const uint64_t rows = block.block.block.rows;
  for (uint64_t row = 0; row < rows; ++row)
    compare_row(block, row,
                {row_of(expected.weight, row, rows), row_of(expected.scales, row, rows),
                 row_of(expected.biases, row, rows)},
                findings);
}

void AffineProof::compare_row(const AffineBlock& block, uint64_t row,
                              const ConstAffineRow& expected, Findings& findings) const {
  const ConstAffineRow found = block.row_found(row);
  const families::OutputModule& module = block.block.module;
  const auto compare_part = [&](std::string_view part, std::span<const std::byte> wanted,
                                std::span<const std::byte> actual) {
    if (!equal_bytes(wanted, actual))
      findings.add(
          module.path + "." + std::string(part),
          fmt::format("{} differs from the source encoded anew", place_text(block.block, row)));
  };
  compare_part(module.parameter, expected.weight, found.weight);
  compare_part("scales", expected.scales, found.scales);
  compare_part("biases", expected.biases, found.biases);
}

// Every group of a searched encoding must be at least as close as MLX's own.
void AffineProof::check_not_worse(const AffineBlock& block, uint64_t row, Findings& findings) {
  const std::span<const float> source = block.row_values(row);
  parity_.resize(source.size());
  numerics::decode_affine(encode_row(block, row), block.planned.format, block.dtype, parity_);
  const size_t group = block.planned.format.group_size;
  for (size_t start = 0; start < source.size(); start += group) {
    const auto part = [&](std::span<const float> all) { return all.subspan(start, group); };
    const double ours = numerics::error_between(part(source), part(decoded_)).squared_error;
    const double parity = numerics::error_between(part(source), part(parity_)).squared_error;
    if (ours <= parity) continue;
    findings.add(block.block.module.tensor_name(),
                 fmt::format("{}, columns from {}: squared error {:.6g} exceeds {:.6g} of MLX's "
                             "own encoding",
                             place_text(block.block, row), start, ours, parity));
    return;
  }
}

void AffineProof::check_lossless(const AffineBlock& block, uint64_t row, Findings& findings) {
  const std::span<const float> source = block.row_values(row);
  const auto [expected, found] = std::ranges::mismatch(source, decoded_);
  if (expected != source.end())
    findings.add(
        block.block.module.tensor_name(),
        fmt::format("{}, column {}: a lossless copy should decode to {}, gives {}",
                    place_text(block.block, row), expected - source.begin(), *expected, *found));
}

}  // namespace sluice::verify
