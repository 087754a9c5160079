// The formats whose weights are small whole numbers under a scale, told apart only by how codes and
// scales are stored: w = scale·(code − offset) + bias, per group. Products with whole-number
// activations are then sums of whole numbers. The scalar reference of taking a row apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "numerics/weight_view.h"

namespace sluice::numerics {

// Value. Either offset or biases are used, never both.
struct CodedFormat {
  size_t group = 0;
  unsigned code_max = 0;
  int offset = 0;
  bool has_bias = false;
  // Where scales and biases of groups are whole numbers under two floats of a block: its elements,
  // of which there are 256. Else 0.
  size_t block = 0;
};

// A block's groups in order: scale = step·scales, bias = −(min_step·mins).
struct BlockScales {
  float step = 0, min_step = 0;
  int8_t scales[16] = {}, mins[16] = {};
};

// Nothing for formats that are not of this kind (plain floats, codebooks, mxfp8).
std::optional<CodedFormat> coded_format(const WeightFormat& format);

// codes: view.columns; scales and biases: one for each group, biases 0 where the format has none.
// Does not allocate. Requires coded_format(view.format).
void take_row_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                    std::span<float> scales, std::span<float> biases);

// The same with one BlockScales for each block. Requires coded_format(view.format)->block > 0.
void take_blocks_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                       std::span<BlockScales> blocks);

}  // namespace sluice::numerics
