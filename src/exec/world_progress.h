#pragma once
/// Progress of all ranks for the caller of execute(): what the stages report, sent to rank 0 and put together there.

#include <chrono>
#include <exception>
#include <memory>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

class WorldProgress {
 public:
  /// `callback` outlives this. Collective.
  WorldProgress(Peers& peers, const plan::MergePlan& plan, const plan::Schedule& schedule, const ProgressCallback& callback);

  /// This rank's figures so far, then the callback; rethrows what it threw. From the pipeline's thread. Not collective.
  void update(std::uint64_t read_bytes, std::uint64_t written_bytes);

  /// This rank's work has ended, well or not. Rank 0 goes on calling the callback until all ranks are here; what it throws there is thrown
  /// at the end. Every rank must come, once; later calls do nothing. Collective.
  void finish();

 private:
  void call_back();

  const bool is_first_;
  const ProgressCallback& callback_;
  const std::chrono::steady_clock::duration interval_;
  std::chrono::steady_clock::time_point last_published_;
  std::unique_ptr<ProgressBoard> board_;
  ProgressBoard::Figures own_{};
  std::vector<Progress> progress_;  ///< on rank 0 of all ranks, else of this one
  bool finished_ = false;
};

}  // namespace moeweld::exec
