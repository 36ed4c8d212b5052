#pragma once
/// What the ranks of a job know of each other while MPI cannot tell them: heartbeats in a file that all see.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "moeweld/base/open_spans.h"
#include "moeweld/base/peers.h"
#include "moeweld/storage/heartbeat_file.h"

namespace moeweld::app {

/// What there is to say of a rank. Pure.
Heartbeat heartbeat_of(std::vector<trace::OpenSpan> spans, std::uint64_t steps, const std::string& place);
/// "read /models/a/model-00001.safetensors (reader 0), for 12 s"; of the calls that others wait for, the longest. Pure.
std::string doing_text(const std::vector<trace::OpenSpan>& spans);
/// Whether a rank with these open spans only waits for other ranks. Pure.
bool waits_for_peers(const std::vector<trace::OpenSpan>& spans);
/// "process 4711 on n17"
std::string this_place();

/// Writes this rank's heartbeats, and reads the others' if it is an observer, from a thread of its own, as long as it lives.
class SignsOfLife {
 public:
  struct Seen {
    std::optional<Heartbeat> last;
    int silent_beats = 0;  ///< intervals since the rank's last new heartbeat
  };

  /// Collective. Rank 0 makes the file, and removes it at the end; throws the same Error on every rank if it cannot.
  SignsOfLife(Peers& peers, const std::string& path, std::chrono::duration<double> interval);
  ~SignsOfLife();
  SignsOfLife(const SignsOfLife&) = delete;
  SignsOfLife& operator=(const SignsOfLife&) = delete;

  /// Calls with the one that lives in this process, if there is one and it has seen others: their steps' sum, and what is known of each
  /// rank. It stays alive that long.
  static void visit(const std::function<void(std::uint64_t, const std::vector<Seen>&)>& visitor);

  std::chrono::duration<double> interval() const { return interval_; }

 private:
  void run();
  void look_at_others();

  const HeartbeatFile file_;
  const int rank_;
  const bool observes_;
  const std::chrono::duration<double> interval_;
  const std::string place_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::uint64_t peer_steps_ = 0;
  std::vector<Seen> seen_;
  std::thread thread_;
};

}  // namespace moeweld::app
