#include "exec/world_progress.h"

#include <algorithm>

#include "moeweld/base/trace.h"

namespace moeweld::exec {

namespace {

using Clock = std::chrono::steady_clock;

/// Nobody reads a line that changes more often; in large worlds rank 0 would be busy with messages.
constexpr Clock::duration kPublishInterval = std::chrono::milliseconds(100);
constexpr Clock::duration kPublishIntervalPerRank = std::chrono::milliseconds(1);

std::uint64_t share_bytes(const plan::MergePlan& plan, const std::vector<plan::FileRun>& runs) {
  std::uint64_t bytes = 0;
  for (const plan::FileRun& run : runs) bytes += (run.end - run.begin) * plan.output_files[run.file].num_places();
  return bytes;
}

}  // namespace

WorldProgress::WorldProgress(Peers& peers, const plan::MergePlan& plan, const plan::Schedule& schedule, bool shares_move,
                             const ProgressCallback& callback)
    : is_first_(peers.rank() == 0),
      callback_(callback),
      interval_(std::max(kPublishInterval, peers.size() * kPublishIntervalPerRank)),
      board_(peers.make_progress_board()) {
  for (int rank = 0; rank < peers.size(); ++rank) {
    if (!is_first_ && rank != peers.rank()) continue;
    progress_.push_back({.read_bytes = 0,
                         .written_bytes = 0,
                         .total_written_bytes = share_bytes(plan, schedule.runs.at(static_cast<std::size_t>(rank))),
                         .shares_move = shares_move});
  }
}

void WorldProgress::update(std::uint64_t read_bytes, std::uint64_t written_bytes) {
  {
    const std::lock_guard lock(mutex_);
    own_ = {read_bytes, written_bytes};
  }
  if (!is_served_) exchange(own_);
  call_back();
}

void WorldProgress::serve() {
  ProgressBoard::Figures own;
  {
    const std::lock_guard lock(mutex_);
    own = own_;
  }
  exchange(own);
}

void WorldProgress::exchange(const ProgressBoard::Figures& own) {
  if (const auto now = Clock::now(); is_first_ || now - last_published_ >= interval_) {
    last_published_ = now;
    board_->publish(own);
  }
  const std::span<const ProgressBoard::Figures> all = board_->collect();
  const std::lock_guard lock(mutex_);
  known_.assign(all.begin(), all.end());
}

void WorldProgress::finish() {
  if (finished_) return;
  finished_ = true;
  const trace::Span span(trace::Kind::kPeers, "wait for other ranks");
  std::exception_ptr failure;
  board_->finish(own_, [&] {
    if (failure) return;
    try {
      const std::span<const ProgressBoard::Figures> all = board_->collect();
      known_.assign(all.begin(), all.end());
      call_back();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

void WorldProgress::call_back() {
  if (!callback_) return;
  {
    const std::lock_guard lock(mutex_);
    if (!is_first_) {
      progress_[0].read_bytes = own_[0];
      progress_[0].written_bytes = own_[1];
    }
    for (std::size_t rank = 0; rank < known_.size(); ++rank) {
      progress_[rank].read_bytes = known_[rank][0];
      progress_[rank].written_bytes = known_[rank][1];
    }
  }
  callback_(progress_);
}

}  // namespace moeweld::exec
