// The products of matmul.h in plain C++: what every instruction set's kernels must give bit for
// bit, and the kernels of the scalar table. Private to kernels and their tests.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/matmul.h"
#include "numerics/coded_row.h"

namespace sluice::kernels {

// Where the parts of one prepared token row lie. Values are bytes, 16-bit numbers or floats, padded
// with zeros to whole steps of 64. sums holds offset·S as int32, or sx·S as f32; in blocks S of
// each weight group as int16, 16 numbers for a block, in their places (sum_place).
struct PreparedLayout {
  Activations activations = Activations::kF32;  // as resolved: kF32 unless the format is coded
  bool wide = false;                            // whole numbers are stored in 16 bits
  bool blocks = false;                          // scales stay whole numbers
  numerics::CodedFormat coded;
  size_t group = 0, groups = 0;  // of the activations: a block's, or a weight group's
  size_t scales_at = 0, sums_at = 0, bytes = 0;
};
PreparedLayout prepared_layout(const numerics::WeightFormat& format, Activations activations,
                               size_t columns);

// Of sixteen groups the even ones come first, as the kernels read them.
constexpr size_t sum_place(const numerics::CodedFormat& coded, size_t group) {
  return coded.group == 16 ? group % 2 * 8 + group / 2 : group;
}

// Values in order.
void prepare_model(const PreparedLayout& layout, std::span<const float> x, std::byte* out);

size_t scratch_bytes_model(const PreparedLayout& layout, size_t columns);
void matmul_model(const numerics::WeightView& w, const PreparedLayout& layout,
                  const std::byte* prepared, size_t tokens, size_t row_begin, size_t row_end,
                  float* y, size_t y_stride, std::byte* scratch);

}  // namespace sluice::kernels
