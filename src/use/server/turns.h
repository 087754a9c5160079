// A lock that is given in the order in which it was asked for: those who take it again and again
// cannot keep the others waiting, as they can with a mutex. Header only.
#pragma once

#include <cstdint>

#include "base/mutex.h"

namespace sluice::server {

// Thread-safe.
class Turns {
 public:
  void take() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const uint64_t mine = next_++;
    while (served_ != mine) changed_.wait(mutex_);
  }
  void give() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ++served_;
    changed_.notify_all();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  uint64_t next_ GUARDED_BY(mutex_) = 0, served_ GUARDED_BY(mutex_) = 0;
};

// Holds a turn while it lives; none where there are no turns to take.
class Turn {
 public:
  explicit Turn(Turns* turns) : turns_(turns) {
    if (turns_ != nullptr) turns_->take();
  }
  ~Turn() {
    if (turns_ != nullptr) turns_->give();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Turns* const turns_;
};

}  // namespace sluice::server
