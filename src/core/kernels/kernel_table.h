// The fast versions of numerics, one table per instruction set: chosen once at start and passed
// down. Every function gives the same bits as its scalar reference in numerics, on every machine.
#pragma once

#include <cstddef>
#include <span>

#include "base/cpu.h"
#include "numerics/affine.h"
#include "numerics/affine_price.h"
#include "numerics/dtype.h"
#include "numerics/error_stats.h"
#include "numerics/fp.h"
#include "numerics/quant_format.h"

namespace sluice::kernels {

struct RawOps;
struct RawFpOps;

// Immutable; thread-safe; functions are reentrant, do not allocate (but where said), and need no
// alignment. Sizes that do not fit together are bugs (SLUICE_CHECK). Inputs as the functions of the
// same name in numerics want them.
class KernelTable {
 public:
  constexpr KernelTable(SimdLevel level, const RawOps* ops, const RawFpOps* fp_ops)
      : level_(level), ops_(ops), fp_ops_(fp_ops) {}

  // The set in use: the scalar one where the asked one was not built.
  SimdLevel level() const { return level_; }

  // dtype: kF32, kF16 or kBF16; in: out.size() elements. NaNs stay NaN, their payload may differ.
  void decode_floats(numerics::DType dtype, std::span<const std::byte> in,
                     std::span<float> out) const;

  // Both return what numerics::affine_row_error says of the result, at no further pass.
  numerics::ErrorStats encode_affine_parity(std::span<const float> row,
                                            const numerics::QuantFormat& format,
                                            numerics::DType dtype, numerics::ParityRule rule,
                                            const numerics::AffineRow& out) const;
  numerics::ErrorStats encode_affine_best(std::span<const float> row,
                                          const numerics::QuantFormat& format,
                                          numerics::DType dtype,
                                          const numerics::AffineRow& out) const;

  void decode_affine(const numerics::ConstAffineRow& in, const numerics::QuantFormat& format,
                     numerics::DType dtype, std::span<float> out) const;
  numerics::ErrorStats affine_row_error(std::span<const float> row,
                                        const numerics::ConstAffineRow& in,
                                        const numerics::QuantFormat& format,
                                        numerics::DType dtype) const;

  // All parity candidates of a row at once; numerics::price_affine_row.
  numerics::AffinePrices price_affine(std::span<const float> row, numerics::DType dtype) const;

  // prices[i]: numerics::price_affine_best_row in formats[i], which must fit the row. At most
  // kAffineCandidates formats; those of one group cost less side by side.
  void price_best(std::span<const float> row, std::span<const numerics::QuantFormat> formats,
                  numerics::DType dtype, std::span<numerics::BestPrice> prices) const;

  // Of the fp modes. Both encoders return what numerics::fp_row_error says of the result; without
  // room for it (empty spans) they only price. A rare row with a group that MLX treats specially
  // goes through the scalar reference, which allocates.
  numerics::ErrorStats encode_fp_parity(std::span<const float> row,
                                        const numerics::QuantFormat& format, numerics::DType dtype,
                                        const numerics::FpRow& out) const;
  numerics::ErrorStats encode_fp_best(std::span<const float> row,
                                      const numerics::QuantFormat& format, numerics::DType dtype,
                                      const numerics::FpRow& out) const;
  void decode_fp(const numerics::ConstFpRow& in, const numerics::QuantFormat& format,
                 std::span<float> out) const;
  numerics::ErrorStats fp_row_error(std::span<const float> row, const numerics::ConstFpRow& in,
                                    const numerics::QuantFormat& format) const;
  // numerics::price_fp_row.
  numerics::FpPrices price_fp(std::span<const float> row, numerics::DType dtype) const;

  size_t find_unencodable(std::span<const float> row) const;

 private:
  numerics::ErrorStats encode_fp(std::span<const float> row, const numerics::QuantFormat& format,
                                 numerics::DType dtype, bool searched,
                                 const numerics::FpRow& out) const;

  SimdLevel level_;
  const RawOps* ops_;
  const RawFpOps* fp_ops_;
};

// level must be one that the processor offers (detect_cpu, parse_simd_level).
const KernelTable& kernel_table(SimdLevel level);

// The formats for which analysis prices the `best` encoder beside parity by default: where it gains
// most per byte. Together they take about six times as long as price_affine (bench/log.tsv).
std::span<const numerics::QuantFormat> default_best_formats();

}  // namespace sluice::kernels
