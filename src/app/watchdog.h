#pragma once
/// Ends a job that makes no progress, and says in which rank and call: docs/decisions/012-watchdog.md.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "app/signs_of_life.h"
#include "app/stall_judge.h"
#include "moeweld/base/open_spans.h"

namespace moeweld::app {

constexpr int kStalledExitCode = 12;

/// How a watchdog speaks.
struct WatchdogVoice {
  bool as_json = false;
  bool writes_output = false;  ///< the command leaves an OUT.partial that --resume continues
};

/// What is known when a job is ended.
struct StallReport {
  int rank = 0;
  std::string place;
  double seconds = 0;
  std::vector<trace::OpenSpan> spans;
  std::vector<SignsOfLife::Seen> peers;  ///< of all ranks, where this one waits for them; else empty
  double seconds_per_beat = 0;
};

/// What is said on standard error. Pure.
std::string stall_text(const StallReport& report, const WatchdogVoice& voice);

/// Looks, from a thread of its own, at what this process' threads do. When a call has not returned for the timeout and nothing else went on
/// meanwhile, it says so on standard error and ends the process with kStalledExitCode: at once, without MPI, which takes calls from the
/// main thread alone, and without any destructor. The launcher ends the other ranks.
class Watchdog {
 public:
  /// `timeout` of 0: does nothing.
  Watchdog(int rank, int size, std::chrono::duration<double> timeout, WatchdogVoice voice);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void run();
  void look(std::chrono::duration<double> since_last);
  [[noreturn]] void end_job(double seconds, std::vector<trace::OpenSpan> spans, std::vector<SignsOfLife::Seen> peers);

  const int rank_;
  const WatchdogVoice voice_;
  const std::string place_;
  StallJudge judge_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace moeweld::app
