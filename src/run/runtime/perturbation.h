// Weights that are computed with as if something had been added to them, for measuring how much
// they matter: the products' results with what is added come on top of those with the weights, so
// that weights stay as they are, in whatever format and wherever they lie.
#pragma once

#include <algorithm>
#include <span>
#include <unordered_map>

#include "base/thread_pool.h"
#include "io/aligned_buffer.h"
#include "kernels/matmul.h"
#include "runtime/engine.h"

namespace sluice::runtime {

// One thread at a time, but for apply().
class PerturbedProducts {
 public:
  // Both must outlive it.
  PerturbedProducts(const kernels::MatmulTable& matmul, ThreadPool& pool)
      : matmul_(matmul), pool_(pool) {}

  // By index of the weight's entry. columns_max: of them; takes memory for at most tokens_max
  // tokens' rows of so many.
  void set(std::unordered_map<uint32_t, RowChange> changes, size_t columns_max, size_t tokens_max);
  bool empty() const { return changes_.empty(); }

  // Adds to a decoded row what the entry has to be added. Reentrant.
  void apply(uint32_t entry, uint64_t row, std::span<float> weights) const;

  // y[t·y_stride + r] += Σ Δ[first_row + r] · x(t) for the rows of the view, which are rows
  // first_row and on of the entry. x(t): the columns that token t brings.
  template <class RowOf>
  void add(uint32_t entry, const numerics::WeightView& view, uint64_t first_row, size_t tokens,
           RowOf&& x, float* y, size_t y_stride) {
    const auto found = changes_.find(entry);
    if (found == changes_.end()) return;
    for (size_t first = 0; first < tokens; first += tokens_max_) {
      const size_t count = std::min(tokens_max_, tokens - first);
      for (size_t t = 0; t < count; ++t) prepare(t, x(first + t));
      multiply(found->second, view, first_row, count, y + first * y_stride, y_stride);
    }
  }

 private:
  void prepare(size_t token, std::span<const float> x);
  void multiply(const RowChange& change, const numerics::WeightView& view, uint64_t first_row,
                size_t tokens, float* y, size_t y_stride);

  const kernels::MatmulTable& matmul_;
  ThreadPool& pool_;
  std::unordered_map<uint32_t, RowChange> changes_;
  size_t tokens_max_ = 0;
  // Prepared rows of x; for each worker a tile of Δ, a decoded row, results and the kernel's own.
  io::AlignedBuffer x_memory_, scratch_memory_;
  std::span<std::byte> x_, scratch_;
  size_t scratch_stride_ = 0, result_offset_ = 0, kernel_offset_ = 0;
};

}  // namespace sluice::runtime
