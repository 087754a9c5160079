#include "numerics/weight_view.h"

#include "base/error.h"
#include "numerics/affine.h"
#include "numerics/block_codec.h"
#include "numerics/fp.h"

namespace sluice::numerics {
namespace {

std::span<const std::byte> row_of(const std::byte* part, size_t row, uint64_t bytes) {
  if (bytes == 0) return {};
  return {part + row * bytes, bytes};
}

}  // namespace

EncodedBytes row_bytes(const WeightFormat& format, size_t columns) {
  if (format.quant.mode == QuantMode::kFloat) {
    const DTypeInfo& info = dtype_info(format.dtype);
    SLUICE_CHECK(columns % info.block_elements == 0);
    return {.weight = columns / info.block_elements * info.block_bytes};
  }
  const uint64_t shape[] = {1, columns};
  return encoded_bytes(format.quant, shape, format.dtype);
}

WeightView WeightView::row_range(size_t first, size_t count) const {
  SLUICE_CHECK(first <= rows && count <= rows - first);
  const EncodedBytes bytes = row_bytes(format, columns);
  WeightView range = *this;
  range.rows = count;
  range.weight = weight + first * bytes.weight;
  if (bytes.scales > 0) range.scales = scales + first * bytes.scales;
  if (bytes.biases > 0) range.biases = biases + first * bytes.biases;
  return range;
}

void decode_row(const WeightView& view, size_t row, std::span<float> out) {
  SLUICE_CHECK(row < view.rows && out.size() == view.columns);
  const EncodedBytes bytes = row_bytes(view.format, view.columns);
  const auto weight = row_of(view.weight, row, bytes.weight);
  const auto scales = row_of(view.scales, row, bytes.scales);
  const auto biases = row_of(view.biases, row, bytes.biases);
  switch (view.format.quant.mode) {
    case QuantMode::kFloat: decode_elements(view.format.dtype, weight, out); return;
    case QuantMode::kAffine:
      decode_affine({weight, scales, biases}, view.format.quant, view.format.dtype, out);
      return;
    case QuantMode::kMxfp4:
    case QuantMode::kMxfp8:
    case QuantMode::kNvfp4: decode_fp({weight, scales}, view.format.quant, out); return;
  }
}

}  // namespace sluice::numerics
