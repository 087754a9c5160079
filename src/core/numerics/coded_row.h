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
};

// Nothing for formats that are not of this kind (plain floats, codebooks, mxfp8).
std::optional<CodedFormat> coded_format(const WeightFormat& format);

// codes: view.columns; scales and biases: one for each group, biases 0 where the format has none.
// Does not allocate. Requires coded_format(view.format).
void take_row_apart(const WeightView& view, size_t row, std::span<uint8_t> codes,
                    std::span<float> scales, std::span<float> biases);

}  // namespace sluice::numerics
