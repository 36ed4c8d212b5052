#include "moeweld/base/thread_team.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace moeweld {
namespace {

TEST(ThreadTeam, CallsEveryIndexOnce) {
  for (const int threads : {-1, 0, 1, 2, 3, 8}) {
    for (const std::size_t count : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> calls(count);
      std::atomic<std::size_t> highest_worker{0};
      for_each_index(threads, count, [&](std::size_t index, std::size_t worker) {
        ++calls[index];
        std::size_t seen = highest_worker;
        while (worker > seen && !highest_worker.compare_exchange_weak(seen, worker)) {
        }
      });
      for (const std::atomic<int>& number : calls) EXPECT_EQ(number, 1);
      EXPECT_LT(highest_worker, static_cast<std::size_t>(std::max(1, threads)));
    }
  }
}

TEST(ThreadTeam, HasSeveralThreadsAtWorkWithNumbersOfTheirOwn) {
  // Each call waits until as many as there are threads have begun, so each must come from another thread.
  constexpr int kThreads = 3;
  std::atomic<int> begun{0};
  std::vector<std::thread::id> thread_of(kThreads);
  for_each_index(kThreads, kThreads, [&](std::size_t, std::size_t worker) {
    thread_of[worker] = std::this_thread::get_id();
    ++begun;
    while (begun < kThreads) std::this_thread::yield();
  });
  EXPECT_EQ(std::set<std::thread::id>(thread_of.begin(), thread_of.end()).size(), 3U);
  EXPECT_EQ(thread_of[0], std::this_thread::get_id());
}

TEST(ThreadTeam, WaitsForWhatHasBegun) {
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> ended{0};
    for_each_index(4, 4, [&](std::size_t, std::size_t worker) {
      if (worker != 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
      ++ended;
    });
    ASSERT_EQ(ended, 4);
  }
}

TEST(ThreadTeam, HandsOnTheFirstExceptionAndWorksAgain) {
  for (const int threads : {1, 4}) {
    std::atomic<int> calls{0};
    EXPECT_THROW(for_each_index(threads, 1000,
                                [&](std::size_t index, std::size_t) {
                                  ++calls;
                                  if (index == 3) throw std::runtime_error("three");
                                  // Else the others could be through all of them before the exception is caught.
                                  std::this_thread::sleep_for(std::chrono::milliseconds(1));
                                }),
                 std::runtime_error);
    EXPECT_LT(calls, 1000);
    calls = 0;
    for_each_index(threads, 10, [&](std::size_t, std::size_t) { ++calls; });
    EXPECT_EQ(calls, 10);
  }
}

TEST(ThreadTeam, RunsLoopsWithinItselfAlone) {
  std::atomic<int> calls{0};
  for_each_index(3, 5, [&](std::size_t, std::size_t) {
    const std::thread::id outer = std::this_thread::get_id();
    for_each_index(3, 7, [&](std::size_t, std::size_t worker) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(worker, 0U);
      ++calls;
    });
  });
  EXPECT_EQ(calls, 35);
}

TEST(ThreadTeam, EachCallingThreadHasItsOwn) {
  std::atomic<int> calls{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) for_each_index(3, 5, [&](std::size_t, std::size_t) { ++calls; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(calls, 4 * 100 * 5);
}

}  // namespace
}  // namespace moeweld
