// Work beside the loop: in order, bounded, and forgotten when it stops.
#include "server/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

namespace sluice::server {
namespace {

// Holds work up until it is opened.
class Gate {
 public:
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    MutexLock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    while (!open_) changed_.wait(mutex_);
  }
  void await_arrived(int count) {
    MutexLock lock(mutex_);
    while (arrived_ < count) changed_.wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GUARDED_BY(mutex_) = false;
  int arrived_ GUARDED_BY(mutex_) = 0;
};

TEST(Workers, BeginInOrder) {
  std::vector<int> order;
  Gate done;
  done.open();
  Workers workers(1, 100, 100);
  for (int i = 0; i < 50; ++i)
    ASSERT_TRUE(workers.post(1, [&, i] {
      order.push_back(i);
      done.pass();
    }));
  done.await_arrived(50);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Workers, OneSlowPieceOfWorkLeavesTheOthersToTheNextThread) {
  Gate slow, done;
  done.open();
  Workers workers(2, 100, 100);
  ASSERT_TRUE(workers.post(1, [&] { slow.pass(); }));
  slow.await_arrived(1);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(workers.post(1, [&] { done.pass(); }));
  done.await_arrived(10);
  slow.open();
}

TEST(Workers, WhatWaitsIsBoundedByCountAndBytes) {
  Gate slow;
  Workers workers(1, 3, 100);
  ASSERT_TRUE(workers.post(1000, [&] { slow.pass(); }));  // alone, so of any size
  slow.await_arrived(1);
  EXPECT_TRUE(workers.post(60, [] {}));
  EXPECT_FALSE(workers.post(41, [] {}));
  EXPECT_FALSE(workers.post(UINT64_MAX, [] {}));
  EXPECT_TRUE(workers.post(40, [] {}));
  EXPECT_TRUE(workers.post(0, [] {}));
  EXPECT_FALSE(workers.post(0, [] {}));  // three wait
  slow.open();
}

TEST(Workers, StoppingEndsWhatHasBegunAndForgetsTheRest) {
  Gate slow;
  std::atomic<int> ran = 0;
  const auto held = std::make_shared<int>(0);
  Workers workers(1, 10, 10);
  ASSERT_TRUE(workers.post(1, [&, held] {
    slow.pass();
    ++ran;
  }));
  slow.await_arrived(1);
  ASSERT_TRUE(workers.post(1, [&, held] { ++ran; }));
  Thread opener([&] {
    while (held.use_count() > 2) std::this_thread::yield();  // what waited was forgotten
    slow.open();
  });
  workers.stop();
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(workers.post(1, [] {}));
}

}  // namespace
}  // namespace sluice::server
