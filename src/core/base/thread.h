// Threads that join, a bounded queue between them, and the flag by which a long job is stopped.
// std::jthread and std::stop_token are missing from libc++ 19. Header only.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace sluice {

// Joins on destruction. Move-only.
class Thread {
 public:
  Thread() = default;
  template <class Function>
    requires(!std::same_as<std::remove_cvref_t<Function>, Thread>)
  explicit Thread(Function&& function) : thread_(std::forward<Function>(function)) {}
  Thread(Thread&&) = default;
  Thread& operator=(Thread&&) = delete;
  ~Thread() {
    if (thread_.joinable()) thread_.join();
  }
  void join() { thread_.join(); }

 private:
  std::thread thread_;
};

// Set once, from any thread or a signal handler. Thread-safe.
class CancelToken {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// First in, first out, at most capacity items. Thread-safe. close() wakes everybody: pushes are
// then refused, pops drain what is left and return nothing.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Blocks while full; false when closed.
  bool push(T item) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!closed_ && items_.size() >= capacity_) not_full_.wait(mutex_);
    if (closed_) return false;
    items_.push_back(std::move(item));
    not_empty_.notify_one();
    return true;
  }

  // Blocks while empty; nothing when closed and drained.
  std::optional<T> pop() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!closed_ && items_.empty()) not_empty_.wait(mutex_);
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    not_full_.notify_one();
    return item;
  }

  void close() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    closed_ = true;
    not_full_.notify_all();
    not_empty_.notify_all();
  }

 private:
  const size_t capacity_;
  Mutex mutex_;
  CondVar not_full_, not_empty_;
  std::deque<T> items_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace sluice
