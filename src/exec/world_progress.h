#pragma once
/// Progress of all ranks for the caller of execute(): what the stages report, sent to rank 0 and put together there.

#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

class WorldProgress {
 public:
  /// `callback` outlives this. Collective.
  WorldProgress(Peers& peers, const plan::MergePlan& plan, const plan::Schedule& schedule, bool shares_move,
                const ProgressCallback& callback);

  /// This rank's figures so far, then the callback; rethrows what it threw. From the pipeline's thread. Not collective.
  void update(std::uint64_t read_bytes, std::uint64_t written_bytes);

  /// From now on update() keeps to what is known in this process, and another thread, the one that calls collectives, exchanges the figures
  /// by serve(). No update() may be under way.
  void set_served(bool served) { is_served_ = served; }
  void serve();
  /// The callback with what is known; rethrows what it threw. Not while another thread calls update().
  void call_back();

  /// This rank's work has ended, well or not. Rank 0 goes on calling the callback until all ranks are here; what it throws there is thrown
  /// at the end. Every rank must come, once; later calls do nothing. Collective.
  void finish();

 private:
  /// Publishes this rank's figures if it is time to, and gets to know what has arrived of the others'.
  void exchange(const ProgressBoard::Figures& own);

  const bool is_first_;
  const ProgressCallback& callback_;
  const std::chrono::steady_clock::duration interval_;
  std::chrono::steady_clock::time_point last_published_;
  std::unique_ptr<ProgressBoard> board_;
  bool is_served_ = false;
  std::mutex mutex_;  // of what both threads use
  ProgressBoard::Figures own_{};
  std::vector<ProgressBoard::Figures> known_;  ///< on rank 0 of all ranks
  std::vector<Progress> progress_;             ///< on rank 0 of all ranks, else of this one
  bool finished_ = false;
};

}  // namespace moeweld::exec
