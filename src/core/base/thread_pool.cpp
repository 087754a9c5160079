#include "base/thread_pool.h"

#include <algorithm>
#include <limits>
#include <system_error>

#include "base/error.h"

namespace sluice {
namespace {

// Looks at a shared word before sleeping. A pause is 10 to 140 cycles, so this is 5 to 40 µs.
constexpr int kSpins = 600;

// A claim takes this part of what is left, so that small items cost few exchanges and the last ones
// go one by one.
constexpr uint32_t kShare = 8;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

uint32_t run_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
uint32_t item_of(uint64_t ticket) { return static_cast<uint32_t>(ticket); }
uint64_t first_ticket(uint32_t run) { return uint64_t{run} << 32; }
bool is_open(uint32_t run) { return run % 2 == 0; }

}  // namespace

ThreadPool::ThreadPool(size_t threads) {
  SLUICE_CHECK(threads >= 1);
  workers_.reserve(threads - 1);
  for (size_t worker = 1; worker < threads; ++worker) {
    try {
      workers_.emplace_back([this, worker] { work(worker); });
    } catch (const std::system_error&) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_.store(true, std::memory_order_relaxed);
    work_cond_.notify_all();
  }
  workers_.clear();
}

void ThreadPool::run_items(size_t count, Call call, void* context) {
  if (count == 0) return;
  if (count == 1 || workers_.empty()) {
    call(context, 0, count, 0);
    return;
  }
  SLUICE_CHECK(count <= std::numeric_limits<uint32_t>::max());
  const uint32_t last_run = run_of(ticket_.load(std::memory_order_relaxed));
  SLUICE_CHECK(!is_open(last_run));
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  // Released, so that who sees the new count also sees that the last run is closed.
  count_.store(static_cast<uint32_t>(count), std::memory_order_release);
  unfinished_.store(static_cast<uint32_t>(count), std::memory_order_relaxed);
  publish(first_ticket(last_run + 1));
  take_items(0);
  await_completion();
  ticket_.store(first_ticket(last_run + 2), std::memory_order_relaxed);
}

void ThreadPool::publish(uint64_t ticket) {
  MutexLock lock(mutex_);
  ticket_.store(ticket, std::memory_order_release);
  if (sleepers_ > 0) work_cond_.notify_all();
}

void ThreadPool::work(size_t worker) {
  uint32_t seen_run = 1;
  while (await_work(seen_run)) {
    seen_run = run_of(ticket_.load(std::memory_order_acquire));
    take_items(worker);
  }
}

void ThreadPool::take_items(size_t worker) {
  const auto threads = static_cast<uint32_t>(this->threads());
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (is_open(run_of(ticket))) {
    const Call call = call_.load(std::memory_order_relaxed);
    void* const context = context_.load(std::memory_order_relaxed);
    const uint32_t count = count_.load(std::memory_order_acquire), item = item_of(ticket);
    if (item >= count) return;
    const uint32_t taken = std::max<uint32_t>(1, (count - item) / (kShare * threads));
    if (!ticket_.compare_exchange_weak(ticket, ticket + taken, std::memory_order_acq_rel,
                                       std::memory_order_acquire))
      continue;
    call(context, item, size_t{item} + taken, worker);
    finish(taken);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

// False when the pool goes away. Work is an open run that this worker has not been through.
bool ThreadPool::await_work(uint32_t seen_run) {
  const auto ready = [&] {
    const uint32_t run = run_of(ticket_.load(std::memory_order_acquire));
    return is_open(run) && run != seen_run;
  };
  for (int spin = 0; spin < kSpins; ++spin) {
    if (ready()) return true;
    if (stopping_.load(std::memory_order_relaxed)) return false;
    pause_briefly();
  }
  MutexLock lock(mutex_);
  ++sleepers_;
  while (!ready() && !stopping_.load(std::memory_order_relaxed)) work_cond_.wait(mutex_);
  --sleepers_;
  return !stopping_.load(std::memory_order_relaxed);
}

void ThreadPool::finish(uint32_t items) {
  if (unfinished_.fetch_sub(items, std::memory_order_acq_rel) != items) return;
  MutexLock lock(mutex_);
  if (caller_sleeps_) done_cond_.notify_one();
}

void ThreadPool::await_completion() {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (unfinished_.load(std::memory_order_acquire) == 0) return;
    pause_briefly();
  }
  MutexLock lock(mutex_);
  caller_sleeps_ = true;
  while (unfinished_.load(std::memory_order_acquire) != 0) done_cond_.wait(mutex_);
  caller_sleeps_ = false;
}

}  // namespace sluice
