// The bounded queue between threads, and the flag that stops them.
#include "base/thread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

namespace sluice {
namespace {

TEST(BoundedQueue, FirstInFirstOut) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.push(i));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.pop(), i);
}

TEST(BoundedQueue, CloseDrainsThenEnds) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.push(std::make_unique<int>(1)));
  queue.close();
  EXPECT_FALSE(queue.push(std::make_unique<int>(2)));
  EXPECT_EQ(**queue.pop(), 1);
  EXPECT_FALSE(queue.pop());
  queue.close();
  EXPECT_FALSE(queue.pop());
}

TEST(BoundedQueue, HoldsNoMoreThanItsCapacity) {
  BoundedQueue<int> queue(2);
  std::atomic<int> pushed{0}, popped{0};
  Thread producer([&] {
    for (int i = 0; i < 200; ++i) {
      queue.push(i);
      ++pushed;
    }
    queue.close();
  });
  while (auto item = queue.pop()) {
    // Two in the queue, one being handed over on either side.
    EXPECT_LE(pushed - popped, 2 + 2);
    ++popped;
  }
  EXPECT_EQ(popped, 200);
}

TEST(BoundedQueue, CloseWakesEverybody) {
  BoundedQueue<int> empty(1), full(1);
  EXPECT_TRUE(full.push(0));
  std::atomic<int> woken{0};
  {
    std::vector<Thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        EXPECT_FALSE(empty.pop());
        ++woken;
      });
      threads.emplace_back([&] {
        EXPECT_FALSE(full.push(1));
        ++woken;
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(woken, 0);
    empty.close();
    full.close();
  }
  EXPECT_EQ(woken, 8);
}

TEST(BoundedQueue, ManyProducersManyConsumers) {
  constexpr int kEach = 2000, kThreads = 4;
  BoundedQueue<int> queue(7);
  std::vector<std::vector<int>> taken(kThreads);
  std::atomic<int> producing{kThreads};
  {
    std::vector<Thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) EXPECT_TRUE(queue.push(t * kEach + i));
        if (producing.fetch_sub(1) == 1) queue.close();
      });
      threads.emplace_back([&, t] {
        while (auto item = queue.pop()) taken[static_cast<size_t>(t)].push_back(*item);
      });
    }
  }
  std::vector<int> all;
  for (const auto& some : taken) {
    // What one producer pushed reaches each consumer in its order.
    for (int t = 0; t < kThreads; ++t) {
      std::vector<int> of_one;
      std::copy_if(some.begin(), some.end(), std::back_inserter(of_one),
                   [t](int item) { return item / kEach == t; });
      EXPECT_TRUE(std::is_sorted(of_one.begin(), of_one.end()));
    }
    all.insert(all.end(), some.begin(), some.end());
  }
  std::sort(all.begin(), all.end());
  std::vector<int> expected(kEach * kThreads);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
}

TEST(CancelToken, IsSeenByOtherThreads) {
  CancelToken token;
  EXPECT_FALSE(token.cancelled());
  Thread waiter([&] {
    while (!token.cancelled()) std::this_thread::yield();
  });
  token.cancel();
  waiter.join();
  EXPECT_TRUE(token.cancelled());
}

TEST(Thread, JoinsOnDestruction) {
  std::atomic<bool> done{false};
  {
    Thread empty;
    Thread thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      done = true;
    });
    Thread moved = std::move(thread);
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace sluice
