#pragma once
/// How far the merge is, on a terminal or in a batch log.

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "moeweld/exec/execute.h"

namespace moeweld::app {

/// How often a line on a terminal is written again, and how often a batch log gets a new one at most.
constexpr auto kLiveInterval = std::chrono::milliseconds(250);
constexpr auto kLogInterval = std::chrono::seconds(10);

/// What the progress of all ranks comes to after so many seconds.
struct ProgressFigures {
  double fraction = 0;  ///< of the output's bytes that are written
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t total_bytes = 0;
  double read_gb_per_s = 0;
  double write_gb_per_s = 0;
  std::optional<double> eta_seconds;  ///< when the slowest rank will be done, if it keeps its pace; none before it wrote anything
  std::optional<int> slowest_rank;    ///< none with one rank
  double slowest_behind = 0;          ///< how much less of its share the slowest rank has written than all ranks of the whole
};
ProgressFigures progress_figures(std::span<const exec::Progress> ranks, double seconds);
/// " 62 %  8.4 of 13.5 GB written   read 7.1 GB/s  write 1.8 GB/s   ETA 0:03   slowest rank 5 (-4 %)"
std::string progress_text(const ProgressFigures& figures);
std::string progress_json(const ProgressFigures& figures);

/// On a terminal one live line, four times a second; else a plain line at most every 10 s; as JSON one object a line.
class ProgressPrinter {
 public:
  ProgressPrinter(bool json, bool quiet);
  ~ProgressPrinter();
  void update(std::span<const exec::Progress> ranks);
  /// Ends the live line.
  void finish();

 private:
  const bool json_;
  const bool quiet_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = start_;
  bool live_ = false;
};

/// The lines after a run: files, bytes, seconds, rates, memory, and what to do next.
std::string summary_text(const exec::MergeReport& report, std::size_t num_files, const std::string& output);
/// What --resume says of an OUT that is there already.
std::string already_complete_text(const std::string& output);
std::string already_complete_json(const std::string& output);
std::string summary_json(const exec::MergeReport& report, std::size_t num_files, const std::string& output);

}  // namespace moeweld::app
