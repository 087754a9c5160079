// Proves what was made of one block against its source, whatever its format: the heart of
// verification, and used as well while a source is converted that is too far away to be read once
// more. Shares nothing that encodes with conversion.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "allocate/plan.h"
#include "base/cpu.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "stream/feedback_factors.h"
#include "stream/stream.h"
#include "verify/affine_proof.h"
#include "verify/fp_proof.h"
#include "verify/output.h"

namespace sluice::verify {

// All rows of a block in each tensor that its module becomes.
struct MadeBlock {
  std::span<const std::byte> weight, scales, biases;
};

// check() may run concurrently for different workers. checkpoint, map and plan outlive it.
class BlockProver {
 public:
  // activations: what the plan's feedback encoder went by; null: what it made is measured alone.
  BlockProver(const io::Checkpoint& checkpoint, const families::ModelMap& map,
              const allocate::Plan& plan, unsigned workers, SimdLevel simd,
              std::shared_ptr<const io::Activations> activations = nullptr);

  // The block's error, measured on what was made. What is wrong is added to findings. Errors: the
  // activations'.
  Result<numerics::ErrorStats> check(const stream::RowBlock& block, const MadeBlock& made,
                                     unsigned worker, Findings& findings);
  // kCorrupt with the first thing that is wrong.
  Status prove(const stream::RowBlock& block, const MadeBlock& made, unsigned worker);

 private:
  struct Scratch {
    explicit Scratch(SimdLevel simd) : affine(simd) {}
    std::vector<std::byte> expected;  // a plain tensor's in another type
    std::vector<float> decoded, rounded;
    AffineProof affine;
    FpProof fp;
    std::vector<std::byte> weight, scales, biases;  // encoded anew, with feedback
  };

  Result<numerics::ErrorStats> check_affine(const stream::RowBlock& block,
                                            const allocate::PlannedTensor& planned,
                                            const MadeBlock& made, Scratch& scratch,
                                            Findings& findings);
  numerics::ErrorStats check_fp(const stream::RowBlock& block,
                                const allocate::PlannedTensor& planned, const MadeBlock& made,
                                Scratch& scratch, Findings& findings);
  numerics::ErrorStats check_plain(const stream::RowBlock& block, const MadeBlock& made,
                                   Scratch& scratch, Findings& findings);

  const io::Checkpoint& checkpoint_;
  const families::ModelMap& map_;
  const allocate::Plan& plan_;
  std::unique_ptr<stream::FeedbackFactors> feedback_;
  std::vector<Scratch> scratch_;  // one for each worker
};

}  // namespace sluice::verify
