#include "app/stall_judge.h"

#include <algorithm>
#include <cmath>

namespace moeweld::app {

namespace {

/// A look that is this much later than the next was due means that the process was stopped.
constexpr double kStopLooks = kLooksPerTimeout / 6.0;
constexpr int kMostObservers = 16;
/// Open MPI's mpirun takes one to two from the end of a rank to the end of the others.
constexpr double kLauncherSeconds = 3;
constexpr int kLooksPerBeat = kLooksPerTimeout / kBeatsPerTimeout;

int observer_distance(int size) { return (size + kMostObservers - 1) / kMostObservers; }

}  // namespace

StallJudge::StallJudge(std::chrono::duration<double> timeout, int patience)
    : interval_(timeout / kLooksPerTimeout), most_peer_looks_(kLooksPerTimeout + patience) {}

StallVerdict StallJudge::look(const StallLook& seen) {
  const bool is_first = !last_;
  const bool was_stopped = seen.since_last > kStopLooks * interval_;
  const bool has_worked = is_first || seen.steps != last_->steps;
  // What is seen of peers for the first time may be old.
  const bool have_peers_worked = is_first || !seen.peer_steps || seen.peer_steps != last_->peer_steps;
  last_ = seen;
  own_looks_ = was_stopped || has_worked || seen.waits_for_peers ? 0 : own_looks_ + 1;
  peer_looks_ = was_stopped || has_worked || have_peers_worked ? 0 : peer_looks_ + 1;
  if (!seen.waits_for_peers) return own_looks_ >= kLooksPerTimeout ? StallVerdict::kOwn : StallVerdict::kNone;
  return seen.peer_steps && peer_looks_ >= most_peer_looks_ ? StallVerdict::kPeers : StallVerdict::kNone;
}

int observer_patience(int rank, int size, std::chrono::duration<double> timeout) {
  const auto looks = [&](double seconds) { return static_cast<int>(std::ceil(seconds * kLooksPerTimeout / timeout.count())); };
  return std::max(3 * kLooksPerBeat, looks(kLauncherSeconds)) + rank / observer_distance(size) * std::max(1, looks(kLauncherSeconds));
}

bool is_observer(int rank, int size) { return rank % observer_distance(size) == 0; }

}  // namespace moeweld::app
