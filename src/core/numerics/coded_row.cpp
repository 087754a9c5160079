#include "numerics/coded_row.h"

#include "base/error.h"
#include "numerics/affine.h"
#include "numerics/block_codec.h"

namespace sluice::numerics {

std::optional<CodedFormat> coded_format(const WeightFormat& format) {
  if (format.quant.mode == QuantMode::kAffine)
    return CodedFormat{format.quant.group_size, (1u << format.quant.bits) - 1, 0, true};
  return std::nullopt;
}

void take_row_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                    std::span<float> scales, std::span<float> biases) {
  const auto coded = coded_format(view.format);
  SLUICE_CHECK(coded.has_value() && row < view.rows && codes.size() == view.columns);
  SLUICE_CHECK(scales.size() == view.columns / coded->group && biases.size() == scales.size());
  const EncodedBytes bytes = row_bytes(view.format, view.columns);
  unpack_codes({view.weight + row * bytes.weight, bytes.weight}, view.format.quant.bits, codes);
  decode_elements(view.format.dtype, {view.scales + row * bytes.scales, bytes.scales}, scales);
  decode_elements(view.format.dtype, {view.biases + row * bytes.biases, bytes.biases}, biases);
}

}  // namespace sluice::numerics
