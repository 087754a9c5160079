#include "kernels/matmul.h"

#include "base/error.h"
#include "kernels/matmul_model.h"

namespace sluice::kernels {

using numerics::WeightFormat;
using numerics::WeightView;

Activations auto_activations(const WeightFormat& format, bool precise) {
  const auto coded = numerics::coded_format(format);
  if (!coded) return Activations::kF32;
  return precise || coded->code_max > 31 ? Activations::kI16 : Activations::kI8;
}

size_t row_step(const WeightFormat&, Activations) { return kMatmulRowStep; }

size_t MatmulTable::prepared_bytes(const WeightFormat& format, Activations activations,
                                   size_t columns) const {
  return prepared_layout(format, activations, columns).bytes;
}

void MatmulTable::prepare(const WeightFormat& format, Activations activations,
                          std::span<const float> x, std::byte* out) const {
  prepare_model(prepared_layout(format, activations, x.size()), x, nullptr, out);
}

size_t MatmulTable::scratch_bytes(const WeightFormat& format, Activations activations,
                                  size_t columns, size_t) const {
  return scratch_bytes_model(prepared_layout(format, activations, columns), columns);
}

void MatmulTable::matmul(const WeightView& w, Activations activations, const std::byte* prepared,
                         size_t tokens, size_t row_begin, size_t row_end, float* y, size_t y_stride,
                         std::byte* scratch) const {
  SLUICE_CHECK(row_begin <= row_end && row_end <= w.rows && y_stride >= row_end - row_begin);
  SLUICE_CHECK(row_begin % row_step(w.format, activations) == 0);
  matmul_model(w, prepared_layout(w.format, activations, w.columns), prepared, tokens, row_begin,
               row_end, y, y_stride, scratch);
}

const MatmulTable& matmul_table(SimdLevel) {
  static constexpr MatmulTable kScalar(SimdLevel::kScalar, nullptr);
  return kScalar;
}

}  // namespace sluice::kernels
