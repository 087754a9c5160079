// Reads of weights behind the computation's back: transfers are queued, and whoever needs the bytes
// waits for a ticket. Large pieces that lie in memory as in their file go through a ring of the
// kernel's (io::ReadRing) where there is one; everything else, and everything where there is none,
// is read by threads of its own, which sleep nearly all of their time: their number is how many
// requests the disk sees at once.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"
#include "io/read_ring.h"
#include "runtime/read_trace.h"

namespace sluice::runtime {

// Of one batch of transfers. Not moved while it is under way; may be used again afterwards.
class ReadTicket {
 public:
  ReadTicket() = default;
  ReadTicket(const ReadTicket&) = delete;
  ReadTicket& operator=(const ReadTicket&) = delete;

 private:
  friend class WeightReader;
  uint32_t in_ring_ = 0;  // or waiting for it; of the submitting thread alone
  uint32_t left_ = 0;     // with the threads; guarded by the reader
  Status status_;         // the first error, guarded likewise
};

// All but bytes_read() is for one thread.
class WeightReader {
 public:
  // ring may be null. threads: started when they are first needed.
  WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, size_t threads,
               std::unique_ptr<io::ReadRing> ring);
  ~WeightReader();  // drops what has not begun
  WeightReader(const WeightReader&) = delete;
  WeightReader& operator=(const WeightReader&) = delete;

  // Behind what was submitted before. The ticket must have been waited for, or be new.
  void submit(std::span<const WeightTransfer> transfers, ReadTicket& ticket);
  // Returns the first error of the ticket's transfers; all of them have ended then.
  Status wait(ReadTicket& ticket);
  bool ended(const ReadTicket& ticket);
  // Until one of them has ended; at least one.
  void wait_any(std::span<ReadTicket* const> tickets);

  bool has_ring() const { return ring_ != nullptr; }
  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
  // The same in whole pages, which is what the disk delivers.
  uint64_t bytes_fetched() const { return bytes_fetched_.load(std::memory_order_relaxed); }

  // From now on, until null. What is under way is waited for first.
  void record(ReadTrace* trace);
  // The same reads into the same places in the same order, after which memory holds what it held
  // when the recording ended. Errors: the source's.
  Status replay(const ReadTrace& trace);

 private:
  struct Job {
    WeightTransfer transfer;
    ReadTicket* ticket;
    bool again = false;  // the ring had it before
  };
  void start(std::span<const WeightTransfer> transfers, ReadTicket& ticket) EXCLUDES(mutex_);
  Status finish(ReadTicket& ticket) EXCLUDES(mutex_);
  void drain() EXCLUDES(mutex_);
  void add_to_ring(const Job& job) EXCLUDES(mutex_);
  void give_to_threads(const Job& job) EXCLUDES(mutex_);
  bool arrived(const WeightTransfer& transfer, int64_t bytes) const;
  void feed_ring() EXCLUDES(mutex_);
  bool collect(bool wait) EXCLUDES(mutex_);
  bool threads_ended(const ReadTicket& ticket) EXCLUDES(mutex_);
  void start_threads();
  Status run(const Job& job, TransferBuffers& buffers) const;
  void count(const WeightTransfer& transfer);
  void work() EXCLUDES(mutex_);
  bool take(Job& job) EXCLUDES(mutex_);
  void end(const Job& job, Status status) EXCLUDES(mutex_);

  const std::shared_ptr<const io::Checkpoint> checkpoint_;
  const size_t thread_count_;
  const std::unique_ptr<io::ReadRing> ring_;
  std::deque<Job> for_ring_;    // behind those that are under way
  std::vector<Job> ring_jobs_;  // by tag
  std::vector<uint32_t> free_tags_;
  std::atomic<uint64_t> bytes_read_{0}, bytes_fetched_{0};
  Mutex mutex_;
  CondVar work_cond_, done_cond_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  size_t jobs_left_ GUARDED_BY(mutex_) = 0;  // queued or being run
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;

  ReadTrace* trace_ = nullptr;
  std::unordered_map<const ReadTicket*, uint32_t> traced_;  // submitted, not waited for
};

}  // namespace sluice::runtime
