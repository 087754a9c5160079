// Weights as MLX takes them: arrays over the store's bytes, in MLX's own packing, and products with
// them. One thread.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "gpu/mlx_memory.h"
#include "runtime/weight_store.h"

namespace sluice::gpu {

// A matrix [rows, columns], or a stack of them [count, rows, columns].
struct MlxMatrix {
  numerics::QuantFormat quant;
  mx::array weight;
  std::optional<mx::array> scales, biases;
  mx::Dtype compute = mx::float32;  // the type of what it is multiplied by
};

// What MLX has no product with; empty: nothing.
std::string unsupported_format(const numerics::WeightFormat& format);

class MlxWeights {
 public:
  // precise: products in f32, whatever the weights are.
  MlxWeights(const runtime::WeightStore& store, const MlxMemory& memory, mx::Device device,
             bool precise)
      : store_(store), memory_(memory), device_(device), precise_(precise) {}

  const runtime::WeightStore& store() const { return store_; }
  // A vector or a few rows in f32, [rows, columns] flattened where rows is 1. Kept.
  const mx::array& floats(uint32_t entry);
  // All of a parameter that stays, stacked where it is experts'. Kept.
  const MlxMatrix& whole(uint32_t entry);
  // What a view shows, split into that many matrices where count > 1.
  MlxMatrix matrix(uint32_t entry, const numerics::WeightView& view, size_t count = 1) const;
  // All of a parameter that does not stay, copied window by window. Errors: the source's.
  Result<MlxMatrix> assemble(uint32_t entry) const;
  // Some rows, decoded to f32 [rows, columns].
  mx::array decode(const MlxMatrix& matrix, const mx::array& rows) const;

  // x [..., columns] times decode(w)ᵀ, or times decode(w) [..., rows]; f32.
  mx::array multiply(const mx::array& x, const MlxMatrix& matrix, bool transpose = true) const;
  // x [n, columns]: row i by the matrix of a stack that experts[i] names; f32 [n, rows].
  mx::array gather(const mx::array& x, const MlxMatrix& stack, const mx::array& experts) const;

 private:
  mx::Dtype compute_type(uint32_t entry) const;
  template <class MakeArray>
  MlxMatrix make_matrix(uint32_t entry, const numerics::WeightView& view, size_t count,
                        MakeArray&& make_array) const;

  const runtime::WeightStore& store_;
  const MlxMemory& memory_;
  const mx::Device device_;
  const bool precise_;
  std::unordered_map<uint32_t, mx::array> floats_;
  std::unordered_map<uint32_t, MlxMatrix> whole_;
};

}  // namespace sluice::gpu
