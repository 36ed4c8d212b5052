#include "exec/shared_portions.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "exec/clock.h"
#include "moeweld/base/trace.h"

namespace moeweld::exec {

namespace {

using Answer = WorkBoard::Answer;

/// Asks if that has not been done yet; the answer if it is here, or with `wait` when it is.
using Asking = std::function<std::optional<Answer>(bool wait)>;

/// Another rank's question waits for one look at most; what that rank still has to read then takes as long. Each look takes the processor
/// from the thread that computes: with 500 in a second that was noticed.
constexpr auto kLook = std::chrono::milliseconds(5);
/// On ranks that nobody asks.
constexpr auto kSeldomLook = std::chrono::milliseconds(20);
/// While this rank's own question is open.
constexpr auto kQuickLook = std::chrono::microseconds(500);
/// When this rank has nothing else to do.
constexpr auto kIdleLook = std::chrono::milliseconds(2);
constexpr int kLooksPerCallback = 50;

class BoardSource final : public WorkSource {
 public:
  BoardSource(const plan::Portions& portions, int rank, RankPipeline& pipeline, Asking asking)
      : portions_(portions),
        begin_(portions.first_portion.at(static_cast<std::size_t>(rank))),
        end_(portions.first_portion.at(static_cast<std::size_t>(rank) + 1)),
        next_is_others_(end_ - begin_ <= 1),
        pipeline_(pipeline),
        asking_(std::move(asking)) {}

  std::optional<std::span<const plan::FileRun>> take(bool wait) override {
    if (is_first_ && begin_ != end_) {
      is_first_ = false;
      return portions_.runs_of(begin_);
    }
    is_first_ = false;
    const std::optional<Answer> answer = asking_(wait);
    if (!answer) return std::nullopt;
    RankReport& report = pipeline_.report;
    ++report.num_asked;
    if (!answer->portion) return std::span<const plan::FileRun>();
    const auto [portion, is_end] = *answer->portion;
    next_is_others_ = is_end;
    const std::span<const plan::FileRun> runs = portions_.runs_of(portion);
    if (portion < begin_ || portion >= end_) {
      for (const plan::FileRun& run : runs)
        report.taken_bytes += (run.end - run.begin) * pipeline_.plan.output_files[run.file].num_places();
    }
    return runs;
  }

  bool next_is_others() const override { return next_is_others_; }

 private:
  const plan::Portions& portions_;
  const std::uint64_t begin_;
  const std::uint64_t end_;
  bool next_is_others_;
  RankPipeline& pipeline_;
  const Asking asking_;
  bool is_first_ = true;
};

/// Between the thread that works and the one that serves.
class Counter {
 public:
  std::optional<Answer> ask(bool wait) {
    std::unique_lock lock(mutex_);
    if (!answer_ && state_ == State::kIdle) {
      state_ = State::kWanted;
      asked_ = Clock::now();
      for_server_.notify_one();
    }
    if (wait) {
      const trace::Span span(trace::Kind::kPeers, "wait for work");
      for_worker_.wait(lock, [this] { return answer_ || failure_; });
    }
    if (failure_) std::rethrow_exception(failure_);
    return std::exchange(answer_, std::nullopt);
  }
  void end() {
    const std::lock_guard lock(mutex_);
    has_ended_ = true;
    for_server_.notify_one();
  }

  /// Waits for news, at most for `pause`, and looks. Whether the worker has ended.
  bool look(WorkBoard& board, Clock::duration pause) {
    bool is_wanted = false;
    bool has_ended = false;
    {
      std::unique_lock lock(mutex_);
      if (state_ == State::kAsked) pause = kQuickLook;
      for_server_.wait_for(lock, pause, [this] { return has_ended_ || state_ == State::kWanted; });
      is_wanted = state_ == State::kWanted;
      has_ended = has_ended_;
    }
    if (is_wanted) board.ask();
    const std::optional<Answer> answer = board.poll();
    const std::lock_guard lock(mutex_);
    if (is_wanted) state_ = State::kAsked;
    if (answer) {
      answer_ = answer;
      longest_seconds_ = std::max(longest_seconds_, seconds_since(asked_));
      state_ = State::kIdle;
      for_worker_.notify_one();
    }
    return has_ended;
  }
  /// From a question to its answer. When nobody asks any more.
  double longest_seconds() const { return longest_seconds_; }
  void fail(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(failure);
    for_worker_.notify_one();
  }

 private:
  enum class State : std::uint8_t { kIdle, kWanted, kAsked };
  std::mutex mutex_;
  std::condition_variable for_server_;
  std::condition_variable for_worker_;
  State state_ = State::kIdle;
  std::optional<Answer> answer_;
  Clock::time_point asked_;
  double longest_seconds_ = 0;
  std::exception_ptr failure_;
  bool has_ended_ = false;
};

void work_beside(WorkBoard& board, const plan::Portions& portions, int rank, RankPipeline& pipeline,
                 const std::function<void(WorkSource&)>& work) {
  WorldProgress& progress = pipeline.progress;
  Counter counter;
  std::exception_ptr failure;
  progress.set_served(true);
  std::thread worker([&] {
    trace::name_thread("main pass");
    omp_set_num_threads(std::max(1, pipeline.options.threads));  // each thread that has a team has a number of its own
    try {
      BoardSource source(portions, rank, pipeline, [&](bool wait) { return counter.ask(wait); });
      work(source);
    } catch (...) {
      failure = std::current_exception();
    }
    counter.end();
  });
  std::exception_ptr own_failure;
  try {
    const Clock::duration pause = board.answers() ? kLook : kSeldomLook;
    bool has_ended = false;
    while (!has_ended) {
      has_ended = counter.look(board, pause);
      board.serve();
      progress.serve();
    }
  } catch (...) {  // the transport is broken
    own_failure = std::current_exception();
    counter.fail(own_failure);
  }
  worker.join();
  progress.set_served(false);
  pipeline.report.longest_answer_seconds = counter.longest_seconds();
  if (own_failure) std::rethrow_exception(own_failure);

  board.leave(failure != nullptr);
  const trace::Span span(trace::Kind::kPeers, "wait for other ranks");
  for (int looks = 1; !board.has_ended(); ++looks) {
    board.serve();
    progress.serve();
    if (looks % kLooksPerCallback == 0) {
      try {
        if (!failure) progress.call_back();
      } catch (...) {
        failure = std::current_exception();
      }
    }
    std::this_thread::sleep_for(kIdleLook);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void work_on_portions(WorkBoard& board, const plan::Portions& portions, int rank, RankPipeline& pipeline,
                      const std::function<void(WorkSource&)>& work) {
  if (board.needs_serving()) return work_beside(board, portions, rank, pipeline, work);
  BoardSource source(portions, rank, pipeline, [&](bool) {
    board.ask();
    return board.poll();
  });
  try {
    work(source);
  } catch (...) {
    board.leave(true);
    throw;
  }
  board.leave(false);
}

}  // namespace moeweld::exec
