#include "moeweld/base/thread_team.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace moeweld {

namespace {

/// A loop within a loop would wait for itself.
thread_local bool is_working = false;

using Work = std::function<void(std::size_t index, std::size_t worker)>;

/// One call's loop. Kept alive by whoever looks at it: a thread may come when all is done, and the caller gone.
class Loop {
 public:
  Loop(std::size_t count, const Work& work) : count_(count), work_(work) {}

  /// Takes indices until there are none. `work_` is there as long as an index is: the caller waits for those that were begun.
  void take_part(std::size_t worker) noexcept {
    for (std::size_t index = next_.fetch_add(1); index < count_; index = next_.fetch_add(1)) {
      if (!has_failed_.load()) {
        try {
          work_(index, worker);
        } catch (...) {
          const std::lock_guard lock(mutex_);
          if (!failure_) failure_ = std::current_exception();
          has_failed_ = true;
        }
      }
      if (num_done_.fetch_add(1) + 1 == count_) {
        const std::lock_guard lock(mutex_);  // or the caller, between its look and its wait, would miss it
        all_done_.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock lock(mutex_);
    all_done_.wait(lock, [this] { return num_done_.load() == count_; });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  const std::size_t count_;
  const Work& work_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> num_done_{0};
  std::atomic<bool> has_failed_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
  std::exception_ptr failure_;
};

/// The threads that help one other thread.
class Team {
 public:
  Team() = default;
  ~Team() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(std::size_t num_helpers, std::size_t count, const Work& work) {
    while (threads_.size() < num_helpers) {
      threads_.emplace_back([this, worker = threads_.size() + 1] { help(worker); });
    }
    const auto loop = std::make_shared<Loop>(count, work);
    {
      const std::lock_guard lock(mutex_);
      loop_ = loop;
      num_helpers_ = num_helpers;
      ++generation_;
    }
    changed_.notify_all();
    loop->take_part(0);
    loop->wait();
  }

 private:
  void help(std::size_t worker) {
    is_working = true;
    std::uint64_t seen = 0;
    while (true) {
      std::shared_ptr<Loop> loop;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
        if (worker <= num_helpers_) loop = loop_;
      }
      if (loop) loop->take_part(worker);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::uint64_t generation_ = 0;
  std::size_t num_helpers_ = 0;
  std::shared_ptr<Loop> loop_;
  std::vector<std::thread> threads_;
};

}  // namespace

void for_each_index(int num_threads, std::size_t count, const Work& work) {
  const std::size_t num_helpers = std::min<std::size_t>(static_cast<std::size_t>(std::max(1, num_threads)), count) - (count == 0 ? 0 : 1);
  if (num_helpers == 0 || is_working) {
    for (std::size_t index = 0; index < count; ++index) work(index, 0);
    return;
  }
  struct Working {
    Working() { is_working = true; }
    ~Working() { is_working = false; }
  };
  thread_local Team team;
  const Working working;
  team.run(num_helpers, count, work);
}

}  // namespace moeweld
