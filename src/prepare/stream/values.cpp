#include "stream/values.h"

#include <cmath>
#include <limits>

#include "numerics/block_codec.h"

namespace sluice::stream {
namespace {

using numerics::DType;

// The largest magnitude that rounds to a finite value of the type.
float magnitude_max(DType dtype) {
  if (dtype == DType::kF16) return std::nextafter(65520.0f, 0.0f);
  if (dtype == DType::kBF16) return std::nextafter(0x1.ffp127f, 0.0f);
  return std::numeric_limits<float>::max();
}

// Whether every finite value of one type is finite in the other.
bool always_fits(DType source, DType output) {
  if (source == output || output == DType::kF32) return source != DType::kF64;
  return output == DType::kBF16 && source == DType::kF16;
}

size_t find_too_large(std::span<const float> row, float limit) {
  for (size_t i = 0; i < row.size(); ++i)
    if (!(std::fabs(row[i]) <= limit)) return i;
  return row.size();
}

}  // namespace

Status check_values(const io::Checkpoint& checkpoint, const RowBlock& block, DType output_dtype,
                    const FindFunction& find) {
  const bool check_range = !always_fits(block.source_dtype, output_dtype);
  for (uint64_t r = 0; r < block.block.rows; ++r) {
    const std::span<const float> row = block.row(r);
    size_t bad = find(row);
    if (bad == row.size() && check_range) bad = find_too_large(row, magnitude_max(output_dtype));
    if (bad == row.size()) continue;
    const float value = row[bad];
    if (std::fabs(value) > magnitude_max(output_dtype) && std::isfinite(value))
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor {}, row {}, column {}: value {} is too large for {}; choose another "
                  "--dtype",
                  checkpoint.path, block.module.tensor_name(), block.block.first_row + r, bad,
                  value, dtype_info(output_dtype).name);
    if (std::isfinite(value))
      return fail(ErrorCode::kCorrupt,
                  "{}: tensor {}, row {}, columns from {}: the range of the weights overflows",
                  checkpoint.path, block.module.tensor_name(), block.block.first_row + r, bad);
    return fail(ErrorCode::kCorrupt,
                "{}: tensor {}, row {}, column {}: expected a finite weight, found {}",
                checkpoint.path, block.module.tensor_name(), block.block.first_row + r, bad, value);
  }
  return {};
}

std::span<const float> values_in_dtype(const RowBlock& block, DType dtype,
                                       std::vector<float>& buffer) {
  const bool plain_f16_or_bf16 =
      block.source_dtype == DType::kF16 || block.source_dtype == DType::kBF16;
  if (block.source_dtype == dtype || (dtype == DType::kF32 && plain_f16_or_bf16))
    return block.values;
  std::vector<std::byte> stored(block.values.size() * dtype_info(dtype).block_bytes);
  buffer.resize(block.values.size());
  numerics::encode_elements(dtype, block.values, stored);
  numerics::decode_elements(dtype, stored, buffer);
  return buffer;
}

}  // namespace sluice::stream
