// The compute threads: one pool per process, built by main and passed down. It runs loops of
// independent items; who runs which item is left to chance, so results must not depend on it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace sluice {

// One thread calls run() at a time; the caller is worker 0 and takes part. Workers that find
// nothing to do look again for some tens of microseconds, the pause between two operations of a
// layer, and then sleep: a pool that only spins takes the time of whoever else needs the core
// (measured: 44 tokens a second fell to 17 beside one busy process). A run never waits for a worker
// that has not begun an item, so a worker whose core is taken costs its share of the work and
// nothing more.
class ThreadPool {
 public:
  // threads ≥ 1, the caller included; fewer where the system refuses to make them.
  explicit ThreadPool(size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t threads() const { return workers_.size() + 1; }

  // body(item, worker) for every item in 0..count−1, worker < threads(); returns when all are done,
  // and all that they wrote is visible. Does not allocate. body must neither throw nor call run().
  template <class Body>
  void run(size_t count, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_items(
        count,
        [](void* context, size_t first, size_t end, size_t worker) {
          for (size_t item = first; item < end; ++item)
            (*static_cast<Plain*>(context))(item, worker);
        },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  using Call = void (*)(void* context, size_t first, size_t end, size_t worker);

  void run_items(size_t count, Call call, void* context);
  void publish(uint64_t ticket) EXCLUDES(mutex_);
  void work(size_t worker);
  void take_items(size_t worker);
  bool await_work(uint32_t seen_run) EXCLUDES(mutex_);
  void await_completion() EXCLUDES(mutex_);
  void finish(uint32_t items) EXCLUDES(mutex_);

  // The run's number in the upper half, odd while none is open; the next item in the lower half.
  // Claiming an item is an exchange of the whole, which fails once the run is over, so that what a
  // late worker has read of call_, context_ and count_ is used only in the run it belongs to.
  std::atomic<uint64_t> ticket_{uint64_t{1} << 32};
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> unfinished_{0};  // items of the open run
  std::atomic<bool> stopping_{false};

  Mutex mutex_;
  CondVar work_cond_, done_cond_;
  size_t sleepers_ GUARDED_BY(mutex_) = 0;
  bool caller_sleeps_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> workers_;
};

}  // namespace sluice
