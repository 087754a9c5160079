// Proves the rows of one block in an fp mode against their source: what MLX's rule gives byte for
// byte (`parity`), no group worse than under it (`best`), or a decoded value equal to the source's
// (lossless); and measures the error. Ordinary groups are acquitted by a quick form of the rule
// that is this module's own; what it does not acquit is decided by the scalar reference, row by
// row.
#pragma once

#include <span>
#include <vector>

#include "allocate/plan.h"
#include "numerics/fp.h"
#include "stream/stream.h"
#include "verify/output.h"

namespace sluice::verify {

// One block as planned and as found. values: the source's, rounded to dtype unless lossless.
struct FpBlock {
  const stream::RowBlock& block;
  const allocate::PlannedTensor& planned;
  numerics::DType dtype;  // the model's
  std::span<const float> values;
  numerics::ConstFpRow found;  // all its rows
};

// Scratch memory of one worker. One thread.
class FpProof {
 public:
  FpProof();

  // The block's error, as numerics::fp_row_error gives it for its rows one after another. What is
  // wrong is added to findings.
  numerics::ErrorStats check(const FpBlock& block, Findings& findings);

 private:
  double group_error(std::span<const float> group, uint8_t scale_byte, const uint8_t* codes,
                     const numerics::QuantFormat& format, double* error_max) const;
  bool acquits(const FpBlock& block, std::span<const float> source,
               const numerics::ConstFpRow& found, numerics::ErrorStats& stats);
  void check_reencoding(const FpBlock& block, uint64_t row, const numerics::ConstFpRow& found,
                        Findings& findings);
  void check_not_worse(const FpBlock& block, uint64_t row, const numerics::ConstFpRow& found,
                       Findings& findings);
  void check_lossless(const FpBlock& block, uint64_t row, const numerics::ConstFpRow& found,
                      Findings& findings);
  // The row's values encoded by the reference.
  numerics::ConstFpRow encode_row(const FpBlock& block, uint64_t row);

  float e2m1_values_[16], e4m3_values_[256];
  std::vector<uint8_t> codes_;
  std::vector<std::byte> weight_, scales_;
  std::vector<float> decoded_, parity_;
};

}  // namespace sluice::verify
