// The part of conversion that sees weights: encodes blocks of rows and writes them at their places;
// the checkpointer makes them durable. Which modules, which files and the folder's fate
// are convert.cpp's business.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "allocate/plan.h"
#include "convert/checkpointer.h"
#include "convert/convert.h"
#include "convert/staging.h"
#include "io/journal.h"
#include "kernels/kernel_table.h"
#include "stream/stream.h"

namespace sluice::convert {

// Where everything goes. All of it outlives the visitor.
struct ConvertTargets {
  std::span<const allocate::PlannedTensor* const> planned;  // one per module
  const stream::OutputLayout& layout;
  std::span<const std::unique_ptr<io::WritableFile>> files;  // one per shard
  io::Journal& journal;
  std::vector<std::optional<ModuleResult>>& results;  // filled as modules become durable
};

// Bytes of one row of each tensor a module becomes.
numerics::EncodedBytes row_bytes(const families::OutputModule& module,
                                 const numerics::QuantFormat& format, numerics::DType dtype);

// visit() is thread-safe; finish_module() and finish() are for one thread at a time.
class ConvertVisitor : public stream::Visitor {
 public:
  ConvertVisitor(const io::Checkpoint& checkpoint, const families::ModelMap& map,
                 const allocate::Plan& plan, const ConvertTargets& targets,
                 const ConvertOptions& options)
      : checkpoint_(checkpoint),
        map_(map),
        rule_(plan.data().parity == "gpu" ? numerics::ParityRule::kGpu
                                          : numerics::ParityRule::kCpu),
        planned_(targets.planned),
        layout_(targets.layout),
        files_(targets.files),
        checkpointer_(targets.layout, targets.files, targets.journal, targets.results,
                      options.bytes_per_checkpoint),
        kernels_(kernels::kernel_table(options.simd)),
        options_(options),
        scratch_(options.workers),
        states_(map.modules.size()) {}

  Status visit(const stream::RowBlock& block, unsigned worker) override;
  Status finish_module(uint32_t module) override;
  // Returns when every finished module is durable and journalled.
  Status finish() { return checkpointer_.finish(); }

 private:
  struct BlockResult {
    Digest source, weight, scales, biases;
    numerics::ErrorStats error;
  };
  struct Scratch {
    std::vector<std::byte> weight, scales, biases;
    std::vector<float> decoded;
  };

  std::vector<BlockResult>& results_of(const stream::RowBlock& block);
  Result<numerics::ErrorStats> encode(const stream::RowBlock& block, Scratch& scratch) const;
  // For all rows of the block; returns the bytes of one.
  numerics::EncodedBytes make_room(const stream::RowBlock& block,
                                   const allocate::PlannedTensor& planned, Scratch& scratch) const;
  Result<numerics::ErrorStats> encode_affine(const stream::RowBlock& block,
                                             const allocate::PlannedTensor& planned,
                                             Scratch& scratch) const;
  Result<numerics::ErrorStats> encode_feedback(const stream::RowBlock& block,
                                               const allocate::PlannedTensor& planned,
                                               Scratch& scratch) const;
  Result<numerics::ErrorStats> encode_fp(const stream::RowBlock& block,
                                         const allocate::PlannedTensor& planned,
                                         Scratch& scratch) const;
  numerics::ErrorStats encode_plain(const stream::RowBlock& block, Scratch& scratch) const;
  Status write(const stream::RowBlock& block, const Scratch& scratch);
  Status check_source(uint32_t module, const Digest& found) const;

  const io::Checkpoint& checkpoint_;
  const families::ModelMap& map_;
  const numerics::ParityRule rule_;
  std::span<const allocate::PlannedTensor* const> planned_;
  const stream::OutputLayout& layout_;
  std::span<const std::unique_ptr<io::WritableFile>> files_;
  Checkpointer checkpointer_;
  const kernels::KernelTable& kernels_;
  const ConvertOptions& options_;
  std::vector<Scratch> scratch_;

  Mutex mutex_;
  // Exists from a module's first block to its last.
  std::vector<std::unique_ptr<std::vector<BlockResult>>> states_ GUARDED_BY(mutex_);
};

}  // namespace sluice::convert
