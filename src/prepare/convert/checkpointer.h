// Makes finished modules durable and journals them, on a thread of its own: encoding goes on while
// the disk syncs. Also has what was written carried to the disk bit by bit, so that a sync has
// little left to do and the page cache does not fill with output.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "convert/staging.h"
#include "io/journal.h"
#include "io/storage.h"
#include "stream/output_layout.h"

namespace sluice::convert {

// A finished module's record in the journal.
Json result_to_json(uint32_t module, const ModuleResult& result);

// Everything given to it outlives it. add() and finish() are for one thread at a time, wrote() is
// thread-safe.
class Checkpointer {
 public:
  // results: filled as modules become durable; not to be read before finish() or the end.
  Checkpointer(const stream::OutputLayout& layout,
               std::span<const std::unique_ptr<io::WritableFile>> files, io::Journal& journal,
               std::vector<std::optional<ModuleResult>>& results, uint64_t bytes_per_checkpoint);
  // Waits for the checkpoint at hand; what was added since is not journalled.
  ~Checkpointer();

  // A module all of whose bytes have been written. Once bytes_per_checkpoint have come together
  // they are synced and journalled in the background; waits while an earlier checkpoint lasts.
  // Errors: those of earlier checkpoints, after which nothing is synced or journalled any more.
  Status add(uint32_t module, const ModuleResult& result, uint64_t bytes);
  // Returns when everything that was added is durable and journalled.
  Status finish();
  // So many bytes have been written to a shard.
  void wrote(uint32_t shard, uint64_t bytes);

 private:
  struct Pending {
    uint32_t module;
    ModuleResult result;
  };

  struct Job {
    std::vector<uint32_t> shards;  // to be carried to disk
    std::vector<Pending> batch;    // to be made durable; usually none
  };

  void work();
  std::optional<Job> next_job() EXCLUDES(mutex_);
  Status save(const std::vector<Pending>& batch);
  void saved(Status status) EXCLUDES(mutex_);
  void hand_over() REQUIRES(mutex_);
  Status failure() REQUIRES(mutex_);

  const stream::OutputLayout& layout_;
  const std::span<const std::unique_ptr<io::WritableFile>> files_;
  io::Journal& journal_;
  std::vector<std::optional<ModuleResult>>& results_;
  const uint64_t bytes_per_checkpoint_;
  std::vector<std::atomic<uint64_t>> unflushed_;  // per shard, bytes since its last write-behind

  // Of the thread that adds.
  std::vector<Pending> pending_;
  uint64_t pending_bytes_ = 0;

  Mutex mutex_;
  CondVar changed_;
  std::vector<Pending> batch_ GUARDED_BY(mutex_);      // being saved, or about to be
  std::vector<uint32_t> to_flush_ GUARDED_BY(mutex_);  // shards
  std::optional<Error> error_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;

  Thread thread_;  // last: it uses all of the above
};

}  // namespace sluice::convert
