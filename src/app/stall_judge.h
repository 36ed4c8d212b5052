#pragma once
/// Decides when a job that makes no progress is to be ended. Pure: what there is to see is handed in, time included.

#include <chrono>
#include <cstdint>
#include <optional>

namespace moeweld::app {

/// A timeout is this many looks, so a job is ended at most a sixtieth of it late.
constexpr int kLooksPerTimeout = 60;
/// Heartbeats are exchanged this many times per timeout.
constexpr int kBeatsPerTimeout = 10;

/// What a rank sees when it looks.
struct StallLook {
  std::chrono::duration<double> since_last{};  ///< by the monotonic clock
  std::uint64_t steps = 0;                     ///< of this rank; changes whenever it makes progress
  bool waits_for_peers = false;                ///< and does nothing else
  std::optional<std::uint64_t> peer_steps;     ///< changes whenever another rank is seen to make progress; nothing where none can be seen
};

enum class StallVerdict : std::uint8_t {
  kNone,
  kOwn,   ///< this rank works on something that does not end
  kPeers  ///< this rank waits, and no rank makes progress
};

/// Counts looks, not seconds. A process that was stopped (SIGSTOP, a suspended machine) did not look, so that time does not count; and
/// after a long stop the count begins anew, since files and peers need a moment, too.
class StallJudge {
 public:
  /// `patience`: looks beyond the timeout that this rank grants when it waits for others.
  StallJudge(std::chrono::duration<double> timeout, int patience);

  StallVerdict look(const StallLook& seen);

  std::chrono::duration<double> interval() const { return interval_; }
  /// For how long nothing has been done, in looks times their interval: of this rank, and of all that it sees.
  std::chrono::duration<double> own_stall() const { return own_looks_ * interval_; }
  std::chrono::duration<double> peers_stall() const { return peer_looks_ * interval_; }

 private:
  const std::chrono::duration<double> interval_;
  const int most_peer_looks_;
  std::optional<StallLook> last_;
  int own_looks_ = 0;
  int peer_looks_ = 0;
};

/// How much later than one that works a rank speaks that waits, in looks. The heartbeats of a rank that makes progress may be two intervals
/// old when they are seen. And one rank is to speak for all: a launcher needs seconds to end the others, so observers follow each other.
int observer_patience(int rank, int size, std::chrono::duration<double> timeout);

/// At most 16 ranks, spread over the world, look at the others: what they read grows with the number of ranks, not with its square.
bool is_observer(int rank, int size);

}  // namespace moeweld::app
