#include "runtime/perturbation.h"

#include <algorithm>
#include <vector>

#include "base/checked.h"

namespace sluice::runtime {
namespace {

constexpr numerics::WeightFormat kValues{.quant = {}, .dtype = numerics::DType::kF32};
constexpr kernels::Activations kActivations = kernels::Activations::kF32;
constexpr size_t kTileRows = kernels::kMatmulRowStep;
constexpr size_t kAlignment = 64, kReadableBehind = 64;

}  // namespace

void PerturbedProducts::set(std::unordered_map<uint32_t, RowChange> changes, size_t columns_max,
                            size_t tokens_max) {
  changes_ = std::move(changes);
  if (changes_.empty()) return;
  tokens_max_ = tokens_max;
  x_ = x_memory_.place(tokens_max * matmul_.prepared_bytes(kValues, kActivations, columns_max), 0);
  const size_t row = columns_max * sizeof(float);
  result_offset_ = align_up((kTileRows + 1) * row + kReadableBehind, kAlignment);
  kernel_offset_ =
      align_up(result_offset_ + kTileRows * tokens_max * sizeof(float), uint64_t{kAlignment});
  scratch_stride_ = align_up(
      kernel_offset_ + matmul_.scratch_bytes(kValues, kActivations, columns_max, tokens_max),
      uint64_t{io::kDirectAlignment});
  scratch_ = scratch_memory_.place(scratch_stride_ * pool_.threads(), 0);
}

void PerturbedProducts::apply(uint32_t entry, uint64_t row, std::span<float> weights) const {
  const auto found = changes_.find(entry);
  if (found == changes_.end()) return;
  std::vector<float> delta(weights.size());
  found->second(row, weights, delta);
  for (size_t i = 0; i < delta.size(); ++i) weights[i] += delta[i];
}

void PerturbedProducts::prepare(size_t token, std::span<const float> x) {
  const size_t bytes = matmul_.prepared_bytes(kValues, kActivations, x.size());
  matmul_.prepare(kValues, kActivations, x, x_.data() + token * bytes);
}

void PerturbedProducts::multiply(const RowChange& change, const numerics::WeightView& view,
                                 uint64_t first_row, size_t tokens, float* y, size_t y_stride) {
  pool_.run((view.rows + kTileRows - 1) / kTileRows, [&](size_t item, size_t worker) {
    const size_t first = item * kTileRows, rows = std::min(kTileRows, view.rows - first);
    std::byte* memory = scratch_.data() + worker * scratch_stride_;
    auto* tile = reinterpret_cast<float*>(memory);
    auto* result = reinterpret_cast<float*>(memory + result_offset_);
    const std::span<float> weights(tile + kTileRows * view.columns, view.columns);
    for (size_t r = 0; r < rows; ++r) {
      matmul_.decode_row(view, first + r, weights);
      change(first_row + first + r, weights, {tile + r * view.columns, view.columns});
    }
    const numerics::WeightView delta{
        .format = kValues, .rows = rows, .columns = view.columns, .weight = memory};
    matmul_.matmul(delta, kActivations, x_.data(), tokens, 0, rows, result, kTileRows,
                   memory + kernel_offset_);
    for (size_t t = 0; t < tokens; ++t)
      for (size_t r = 0; r < rows; ++r) y[t * y_stride + first + r] += result[t * kTileRows + r];
  });
}

}  // namespace sluice::runtime
