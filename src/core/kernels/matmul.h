// Products of activations with weights in any format, one table per instruction set. Every element
// of a result depends on its token and its row alone: not on how many tokens or rows are computed
// with it, not on threads, and not on the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu.h"
#include "numerics/weight_view.h"

namespace sluice::kernels {

struct RawMatmulOps;

// What activations are rounded to before a product. Coded formats (numerics/coded_row.h) know whole
// numbers under one scale for each weight group; all others take kF32, whatever is asked.
enum class Activations : uint8_t {
  kF32,  // not rounded; weights are decoded to f32
  kI16,  // 16 bits: relative error about 3e-5, below what bf16 activations lose
  kI8,   // 8 bits: relative error about 6e-3, below what weights of five bits and less lose
};

// precise: heads and routers. Depends on format and role only, never on load or batch.
Activations auto_activations(const numerics::WeightFormat& format, bool precise);
// What products with weights of that format take when these are asked for.
Activations taken_activations(const numerics::WeightFormat& format, Activations asked);

// Rows per work item that the kernels like; all splits but the last must be multiples of it.
inline constexpr size_t kMatmulRowStep = 16;
size_t row_step(const numerics::WeightFormat& format, Activations activations);

// Immutable; thread-safe; functions are reentrant and do not allocate.
//
// Numerics, coded formats: sx = max|x| / 127 (or 32767) over a weight group, xq = rint(x / sx),
// S = Σ xq. In f32, group after group, from y = 0:
//   with biases:    y = fma(scale·sx, Σ code·xq, y), then y = fma(bias, sx·S, y)
//   with an offset: y = fma(scale·sx, Σ code·xq − offset·S, y)
// where sums are whole numbers, rounded once to f32. A value that is not finite makes sx NaN.
// Where a block's scales are whole numbers (CodedFormat::block) and activations have 8 bits, sx is
// the block's, and block after block, the inner sums over a group and the outer ones over groups:
//   with biases:    y = fma(step·sx, Σ scale·Σ code·xq, y), then y = fma(min_step·sx, −Σ min·S, y)
//   with an offset: y = fma(step·sx, Σ scale·(Σ code·xq − offset·S), y)
// Numerics, others: sixteen f32 lanes, lane l summing decode_row(w)[i]·x[i] by fma over i mod 16 =
// l in rising order; then lanes l and l + 8, l + 4, l + 2, l + 1 are added.
class MatmulTable {
 public:
  constexpr MatmulTable(SimdLevel level, const RawMatmulOps* ops) : level_(level), ops_(ops) {}

  // The set in use: the scalar one where the asked one was not built.
  SimdLevel level() const { return level_; }

  // Of one prepared token row; a multiple of 64. Tables of several levels may differ in what they
  // write there.
  size_t prepared_bytes(const numerics::WeightFormat& format, Activations activations,
                        size_t columns) const;
  // x: one token row. out: prepared_bytes, aligned to 64.
  void prepare(const numerics::WeightFormat& format, Activations activations,
               std::span<const float> x, std::byte* out) const;

  // out: w.columns values, the same bits as numerics::decode_row gives.
  void decode_row(const numerics::WeightView& w, size_t row, std::span<float> out) const;

  // For one call of matmul at a time; a multiple of 64.
  size_t scratch_bytes(const numerics::WeightFormat& format, Activations activations,
                       size_t columns, size_t tokens) const;

  // y[t·y_stride + (r − row_begin)] = Σ w[r]·x[t] for tokens t and rows r in [row_begin, row_end).
  //   prepared: tokens rows of prepared_bytes, by this table's prepare() for w.format
  //   scratch: scratch_bytes, aligned to 64
  // Requires: row_begin a multiple of row_step, y_stride ≥ row_end − row_begin.
  void matmul(const numerics::WeightView& w, Activations activations, const std::byte* prepared,
              size_t tokens, size_t row_begin, size_t row_end, float* y, size_t y_stride,
              std::byte* scratch) const;

  // Multiplies and adds in registers, with the instructions that products of many tokens with such
  // activations are made of, about `count` times, and returns how often: what a second of it comes
  // to is the most that matmul() could reach. 0: the scalar set, which has no such instructions.
  uint64_t multiply_only(Activations activations, uint64_t count) const;

 private:
  SimdLevel level_;
  const RawMatmulOps* ops_;
};

// level must be one that the processor offers (detect_cpu, parse_simd_level).
const MatmulTable& matmul_table(SimdLevel level);
// All that this processor can run of that level, of which the first is matmul_table(level): for
// tests, because one processor would never try the others. Not empty.
std::span<const MatmulTable> matmul_tables(SimdLevel level);

}  // namespace sluice::kernels
