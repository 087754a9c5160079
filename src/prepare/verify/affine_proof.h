// Proves the affine rows of one block against their source: what MLX's rule gives byte for byte
// (`parity`), no group worse than under it (`best`), or a decoded value equal to the source's
// (lossless); and measures the error, which is all that can be said of `feedback` without the
// inputs that it went by. The group check acquits at the disk's rate; whatever it does
// not acquit is decided by the scalar reference, row by row.
#pragma once

#include <span>
#include <vector>

#include "allocate/plan.h"
#include "base/cpu.h"
#include "numerics/affine.h"
#include "stream/stream.h"
#include "verify/group_check.h"
#include "verify/output.h"

namespace sluice::verify {

// One block as planned and as found. values: the source's, rounded to dtype unless lossless.
struct AffineBlock {
  const stream::RowBlock& block;
  const allocate::PlannedTensor& planned;
  numerics::DType dtype;  // of scales and biases
  numerics::ParityRule rule;
  std::span<const float> values;
  numerics::ConstAffineRow found;  // all its rows

  std::span<const float> row_values(uint64_t row) const;
  numerics::ConstAffineRow row_found(uint64_t row) const;
};

// Scratch memory of one worker. One thread.
class AffineProof {
 public:
  explicit AffineProof(SimdLevel simd);

  // The block's error, as numerics::affine_row_error gives it for its rows one after another. What
  // is wrong is added to findings.
  numerics::ErrorStats check(const AffineBlock& block, Findings& findings);
  // Adds a finding for each of its rows that is not byte for byte as expected.
  void compare(const AffineBlock& block, const numerics::ConstAffineRow& expected,
               Findings& findings) const;

 private:
  void check_row(const AffineBlock& block, uint64_t row, Findings& findings);
  void compare_row(const AffineBlock& block, uint64_t row, const numerics::ConstAffineRow& expected,
                   Findings& findings) const;
  void check_not_worse(const AffineBlock& block, uint64_t row, Findings& findings);
  void check_lossless(const AffineBlock& block, uint64_t row, Findings& findings);
  numerics::ConstAffineRow encode_row(const AffineBlock& block, uint64_t row);

  GroupCheck group_check_;
  std::vector<GroupFigures> figures_;
  std::vector<std::byte> weight_, scales_, biases_;  // of a row encoded by the reference
  std::vector<float> decoded_, parity_;
};

}  // namespace sluice::verify
