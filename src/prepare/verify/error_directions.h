// Looks for modules whose quantization error is no noise but lies in a few directions, where it
// adds up instead of averaging out: a warning, not a finding. Of each quantized module some rows
// are kept while they pass by, as many as a megabyte of weights, and their errors' spectrum is held
// against that of white noise.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "allocate/plan.h"
#include "base/thread.h"
#include "families/recipe.h"
#include "stream/stream.h"
#include "verify/block_prover.h"
#include "verify/verify.h"

namespace sluice::verify {

// Which rows of a matrix are looked at: spread evenly, one at a place of its own in each stretch.
// Value.
class RowSample {
 public:
  // Nothing is looked at where noise itself would fill eight directions, or rows are too long.
  RowSample(uint64_t rows, uint64_t columns);
  uint64_t count() const { return count_; }
  // The row that is looked at in stretch i < count().
  uint64_t row(uint64_t i) const;
  // The first stretch whose row is no less than this one.
  uint64_t first_from(uint64_t row) const;

 private:
  uint64_t rows_ = 0, count_ = 0;
};

// add() may run concurrently for different blocks. map and plan outlive it.
class ErrorDirections {
 public:
  ErrorDirections(const families::ModelMap& map, const allocate::Plan& plan);

  // Keeps the block's sampled rows; with the last block of a matrix, measures it.
  void add(const stream::RowBlock& block, const MadeBlock& made);
  // After the last block of a module: it is counted, and kept where its error is concentrated.
  void finish_module(uint32_t module);

  // Of the modules finished so far.
  uint64_t measured() const { return measured_; }
  const std::vector<ConcentratedError>& concentrated() const { return concentrated_; }

 private:
  // The one matrix of a module that is looked at: of a stack, its worst expert.
  struct State {
    RowSample sample;
    std::vector<float> errors;  // [sample.count() × columns]
    uint32_t blocks_left = 0;
    double share = 0;
    bool measured = false;
  };

  State* state_of(const stream::RowBlock& block);

  const families::ModelMap& map_;
  const allocate::Plan& plan_;
  Mutex mutex_;
  std::vector<std::unique_ptr<State>> states_ GUARDED_BY(mutex_);

  // finish_module only.
  uint64_t measured_ = 0;
  std::vector<ConcentratedError> concentrated_;
};

}  // namespace sluice::verify
