#include "server/workers.h"

#include <utility>

namespace sluice::server {

Workers::Workers(size_t threads, size_t waiting_max, uint64_t bytes_max)
    : waiting_max_(waiting_max), bytes_max_(bytes_max) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

bool Workers::post(uint64_t bytes, std::function<void()> work) {
  MutexLock lock(mutex_);
  if (stopping_ || waiting_.size() >= waiting_max_) return false;
  if (!waiting_.empty() && (bytes > bytes_max_ || bytes_ > bytes_max_ - bytes)) return false;
  bytes_ += bytes;
  waiting_.push_back({bytes, std::move(work)});
  changed_.notify_one();
  return true;
}

void Workers::stop() {
  std::deque<Item> forgotten;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    forgotten.swap(waiting_);
    changed_.notify_all();
  }
  forgotten.clear();
  threads_.clear();
}

void Workers::run() {
  for (;;) {
    Item item;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && waiting_.empty()) changed_.wait(mutex_);
      if (waiting_.empty()) return;
      item = std::move(waiting_.front());
      waiting_.pop_front();
      bytes_ -= item.bytes;
    }
    item.work();
  }
}

}  // namespace sluice::server
