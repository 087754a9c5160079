// Writes a model in MLX's format according to a plan. Every output byte's place is known before the
// first is written, so blocks are encoded and written in any order, on all threads; a journal
// beside the output remembers what is durable, and the folder takes its final name last.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "allocate/plan.h"
#include "base/cpu.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread.h"
#include "convert/output_claim.h"
#include "families/recipe.h"
#include "io/checkpoint.h"
#include "io/storage.h"
#include "numerics/affine.h"
#include "stream/part.h"

namespace sluice::stream {
struct RowBlock;
class FeedbackFactors;
}  // namespace sluice::stream

namespace sluice::convert {

// All rows of a block in each tensor that its module becomes.
struct EncodedBlock {
  std::span<const std::byte> weight, scales, biases;
};

struct ConvertOptions {
  // A part encodes its own modules only; merge() publishes once all parts are done.
  stream::Part part;
  unsigned workers = 1;
  SimdLevel simd = SimdLevel::kScalar;
  const CancelToken* cancel = nullptr;
  Progress* progress = nullptr;  // begun here for each stage; the last is ended by the caller
  Log* log = nullptr;            // required
  // Finished modules are made durable and journalled together after this many bytes of output, so
  // that a killed run repeats little and syncs seldom. Tests make it small.
  uint64_t bytes_per_checkpoint = 256ull << 20;
  // What the plan's feedback encoder goes by; required where it has that, and of the plan's digest.
  stream::FeedbackFactors* feedback = nullptr;
  // Of out, for a caller that works there before converting; null: convert takes one itself.
  OutputClaim* claim = nullptr;
  // Sees every block beside what was made of it, before that is written. Called concurrently, as
  // Visitor::visit. An error ends the conversion. What an earlier run made without it is made anew.
  std::function<Status(const stream::RowBlock& block, const EncodedBlock& made, unsigned worker)>
      prove_block;
  // Called with the complete, unpublished folder; an error leaves it unpublished.
  std::function<Status(const std::string& partial)> before_publishing;
};

struct ConvertSummary {
  uint64_t weight_file_bytes = 0;  // all files a loader reads as weights
  uint64_t shards = 0;
  uint64_t modules_resumed = 0;  // found complete in an interrupted run's journal
};

// What can be said of an unfinished output before there is a plan: it holds nothing of somebody
// else's, and was begun from this checkpoint by this version. Errors: kInvalidArgument otherwise.
// A new one's journal says from now on what it was begun from.
Status begin_unfinished(io::Storage& storage, const io::Checkpoint& checkpoint,
                        const std::string& out);

// Creates out from checkpoint. Errors: kInvalidArgument when out exists, or when an unfinished run
// belongs to another source or plan; kExhausted when the disk is too small (before anything is
// written, if it can be known); kCorrupt naming a tensor whose source is damaged or has changed
// since the analysis behind the plan. After any error the call can be repeated and goes on.
Result<ConvertSummary> convert(io::Storage& storage, const io::Checkpoint& checkpoint,
                               const families::ModelMap& map, const allocate::Plan& plan,
                               const std::string& out, const ConvertOptions& options);

// Checks what all parts wrote, as recorded in their journals, and publishes it: byte for byte what
// one process would have written. plan: of parts_path(out). Errors: as convert; kInvalidArgument
// naming the parts that have to be run (again).
Result<ConvertSummary> merge(io::Storage& storage, const io::Checkpoint& checkpoint,
                             const families::ModelMap& map, const allocate::Plan& plan,
                             uint32_t parts, const std::string& out, const ConvertOptions& options);

}  // namespace sluice::convert
