// The compute pool: every item once, on any number of threads, with sleeping and busy cores.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

namespace sluice {
namespace {

TEST(ThreadPool, RunsEachItemOnceAndShowsWhatItWrote) {
  for (const size_t threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const size_t count : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<int> done(count);
      pool.run(count, [&](size_t item, size_t worker) {
        EXPECT_LT(worker, threads);
        ++done[item];
      });
      EXPECT_EQ(done, std::vector<int>(count, 1)) << threads << " threads";
    }
  }
}

// Short runs one after another are what a layer is made of, and where a late worker would do harm:
// each run's items lie in a vector of its own, gone when the next begins.
TEST(ThreadPool, ManyShortRunsStayApart) {
  ThreadPool pool(4);
  for (uint32_t run = 0; run < 20000; ++run) {
    const size_t count = run % 5 + 1;
    const auto items = std::make_unique<uint32_t[]>(count);
    pool.run(count, [&items, run](size_t item, size_t) { items[item] += run + 1; });
    for (size_t item = 0; item < count; ++item) ASSERT_EQ(items[item], run + 1);
  }
}

TEST(ThreadPool, WakesFromSleep) {
  ThreadPool pool(3);
  for (int run = 0; run < 20; ++run) {
    std::atomic<size_t> sum{0};
    pool.run(100, [&](size_t item, size_t) { sum += item; });
    EXPECT_EQ(sum, 4950u);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST(ThreadPool, AWorkerIsOneThreadAtATime) {
  constexpr size_t kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<std::atomic<int>> inside(kThreads);
  pool.run(2000, [&](size_t, size_t worker) {
    EXPECT_EQ(inside[worker].fetch_add(1), 0);
    inside[worker].fetch_sub(1);
  });
}

// A worker that is busy elsewhere, here with one long item, does not hold up the items of others;
// the caller sleeps for it in the end.
TEST(ThreadPool, SlowItemsDoNotHoldUpOthers) {
  ThreadPool pool(2);
  std::atomic<size_t> others{0};
  pool.run(50, [&](size_t item, size_t) {
    if (item == 40) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ++others;
  });
  EXPECT_EQ(others, 50u);
}

// More threads than cores, all of them taken by somebody else: every run still ends, and soon.
TEST(ThreadPool, EndsBesideBusyCores) {
  std::atomic<bool> stop{false};
  std::vector<Thread> busy;
  for (unsigned i = 0; i < std::max(2u, std::thread::hardware_concurrency()); ++i)
    busy.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
  {
    ThreadPool pool(4);
    std::vector<uint64_t> sums(64);
    for (int run = 0; run < 200; ++run)
      pool.run(sums.size(), [&](size_t item, size_t) {
        for (uint64_t i = 0; i < 500; ++i) sums[item] += i ^ item;
      });
    for (size_t item = 0; item < sums.size(); ++item) {
      uint64_t expected = 0;
      for (uint64_t i = 0; i < 500; ++i) expected += i ^ item;
      EXPECT_EQ(sums[item], 200 * expected);
    }
  }
  stop = true;
}

TEST(ThreadPoolDeathTest, RefusesARunWithinARun) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        pool.run(8, [&](size_t, size_t) { pool.run(8, [](size_t, size_t) {}); });
      },
      "");
}

}  // namespace
}  // namespace sluice
