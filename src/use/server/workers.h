// A few threads for work that would keep the HTTP server's loop from everybody else: templates,
// tokens of long texts, schemas.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "base/thread.h"

namespace sluice::server {

// Thread-safe. Work begins in the order in which it came. Destruction stops.
class Workers {
 public:
  // bytes_max: of all that waits, as its callers count it.
  Workers(size_t threads, size_t waiting_max, uint64_t bytes_max);
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False when too much waits already, or behind stop(). What waits alone may be of any size. Of
  // work that was taken, no thread keeps anything once it has been done.
  bool post(uint64_t bytes, std::function<void()> work) EXCLUDES(mutex_);
  // What has not begun is forgotten; returns when the rest has ended.
  void stop() EXCLUDES(mutex_);

 private:
  struct Item {
    uint64_t bytes;
    std::function<void()> work;
  };
  void run() EXCLUDES(mutex_);

  const size_t waiting_max_;
  const uint64_t bytes_max_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Item> waiting_ GUARDED_BY(mutex_);
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;  // last: they use all of the above
};

}  // namespace sluice::server
