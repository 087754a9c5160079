// A weight matrix as it lies in memory, in any format that a model can be run from, and the scalar
// reference that decodes one of its rows. kernels/matmul.h multiplies by such matrices.
#pragma once

#include <cstddef>
#include <span>

#include "numerics/dtype.h"
#include "numerics/quant_format.h"

namespace sluice::numerics {

// Value.
struct WeightFormat {
  QuantFormat quant;           // kFloat: elements of dtype; otherwise MLX's packing
  DType dtype = DType::kBF16;  // kFloat: a float type or GGUF block type; affine: of scales and
                               // biases (f32, f16 or bf16); fp modes: without meaning
  auto operator<=>(const WeightFormat&) const = default;
};

// Bytes of one row of each part; parts that a format lacks take none.
// Requires: columns is a whole number of groups, or of blocks.
EncodedBytes row_bytes(const WeightFormat& format, size_t columns);

// rows × columns, row after row without gaps; not owned. Any alignment. 64 readable bytes lie
// behind each part. columns is the input axis.
struct WeightView {
  WeightFormat format;
  size_t rows = 0, columns = 0;
  const std::byte* weight = nullptr;
  const std::byte* scales = nullptr;
  const std::byte* biases = nullptr;

  // Rows [first, first + count); of stacked experts, one is a range of rows.
  WeightView row_range(size_t first, size_t count) const;
};

// out: view.columns values, the same bits as decode_elements, decode_affine and decode_fp give.
// Does not allocate. Threads: reentrant.
void decode_row(const WeightView& view, size_t row, std::span<float> out);

}  // namespace sluice::numerics
