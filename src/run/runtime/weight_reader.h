// Reads of weights behind the computation's back: transfers are queued, threads of its own run
// them, and whoever needs the bytes waits for a ticket. The threads sleep in reads nearly all of
// their time; their number is how many requests the disk sees at once.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"
#include "runtime/weight_entry.h"

namespace sluice::runtime {

// Of one batch of transfers. Not moved while it is under way; may be used again afterwards.
class ReadTicket {
 public:
  ReadTicket() = default;
  ReadTicket(const ReadTicket&) = delete;
  ReadTicket& operator=(const ReadTicket&) = delete;

 private:
  friend class WeightReader;
  uint32_t left_ = 0;  // guarded by the reader
  Status status_;      // the first error, guarded likewise
};

// submit() and wait() are for one thread.
class WeightReader {
 public:
  WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, size_t threads);
  ~WeightReader();  // drops what has not begun
  WeightReader(const WeightReader&) = delete;
  WeightReader& operator=(const WeightReader&) = delete;

  // Behind what was submitted before. The ticket must have been waited for, or be new.
  void submit(std::span<const WeightTransfer> transfers, ReadTicket& ticket) EXCLUDES(mutex_);
  // Returns the first error of the ticket's transfers; all of them have ended then.
  Status wait(ReadTicket& ticket) EXCLUDES(mutex_);
  bool ended(const ReadTicket& ticket) const EXCLUDES(mutex_);
  // Until one of them has ended; at least one.
  void wait_any(std::span<ReadTicket* const> tickets) EXCLUDES(mutex_);

  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

 private:
  struct Job {
    WeightTransfer transfer;
    ReadTicket* ticket;
  };
  void work() EXCLUDES(mutex_);
  bool take(Job& job) EXCLUDES(mutex_);
  void finish(const Job& job, Status status) EXCLUDES(mutex_);

  const std::shared_ptr<const io::Checkpoint> checkpoint_;
  std::atomic<uint64_t> bytes_read_{0};
  mutable Mutex mutex_;
  CondVar work_cond_, done_cond_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;
};

}  // namespace sluice::runtime
