#include "stream/values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "numerics/block_codec.h"

namespace sluice::stream {
namespace {

using numerics::DType;

// Elements, small enough for the stack.
constexpr size_t kRoundedAtOnce = 1024;

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

// As stored, where f32 cannot hold it.
double exact_value(const RowBlock& block, uint64_t row, size_t column) {
  if (!block.is_plain(DType::kF64)) return double{block.row(row)[column]};
  double value;
  std::memcpy(&value, block.source.data() + (row * block.module.columns() + column) * sizeof value,
              sizeof value);
  return value;
}

size_t find_too_large(std::span<const float> row, float limit) {
  bool all_fit = true;  // without a way out, which would keep this from being vectorised
  for (const float value : row) all_fit &= std::fabs(value) <= limit;
  if (all_fit) return row.size();
  for (size_t i = 0; i < row.size(); ++i)
    if (!(std::fabs(row[i]) <= limit)) return i;
  return row.size();
}

}  // namespace

Status check_values(const io::Checkpoint& checkpoint, const RowBlock& block, DType output_dtype,
                    const FindFunction& find) {
  const bool check_range = !always_fits(block.stored.dtype, output_dtype);
  for (uint64_t r = 0; r < block.block.rows; ++r) {
    const std::span<const float> row = block.row(r);
    size_t bad = find(row);
    if (bad == row.size() && check_range) bad = find_too_large(row, magnitude_max(output_dtype));
    if (bad == row.size()) continue;
    const double value = exact_value(block, r, bad);
    if (std::isfinite(value) && std::fabs(value) > double{magnitude_max(output_dtype)})
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
      block.stored.dtype == DType::kF16 || block.stored.dtype == DType::kBF16;
  if (block.stored.dtype == dtype || (dtype == DType::kF32 && plain_f16_or_bf16))
    return block.values;
  buffer.resize(block.values.size());
  std::array<std::byte, kRoundedAtOnce * sizeof(double)> stored;
  const size_t element_bytes = dtype_info(dtype).block_bytes;
  for (size_t at = 0; at < buffer.size(); at += kRoundedAtOnce) {
    const size_t count = std::min(kRoundedAtOnce, buffer.size() - at);
    const auto bytes = std::span(stored).first(count * element_bytes);
    numerics::encode_elements(dtype, block.values.subspan(at, count), bytes);
    numerics::decode_elements(dtype, bytes, std::span(buffer).subspan(at, count));
  }
  return buffer;
}

}  // namespace sluice::stream
