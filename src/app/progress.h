#pragma once
/// How far the merge is, on a terminal or in a batch log.

#include <chrono>
#include <cstdint>
#include <string>

#include "moeweld/exec/execute.h"

namespace moeweld::app {

/// Rank 0's view, scaled to the whole: ranks have shares of equal cost. On a terminal one live line, four times a second; else a plain line
/// at most every 10 s; as JSON one object a line.
class ProgressPrinter {
 public:
  ProgressPrinter(std::uint64_t total_output_bytes, bool json, bool quiet);
  ~ProgressPrinter();
  void update(const exec::Progress& progress);
  /// Ends the live line.
  void finish();

 private:
  std::string line(const exec::Progress& progress, double seconds) const;

  const std::uint64_t total_output_bytes_;
  const bool json_;
  const bool quiet_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = start_;
  bool live_ = false;
};

/// The lines after a run: files, bytes, seconds, rates, memory, and what to do next.
std::string summary_text(const exec::MergeReport& report, std::size_t num_files, const std::string& output);
std::string summary_json(const exec::MergeReport& report, std::size_t num_files, const std::string& output);

}  // namespace moeweld::app
