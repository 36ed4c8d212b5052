#pragma once
/// A rank's pipeline: read → combine → write, and what surrounds it: preflight, prepare, publish.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/digest.h"
#include "moeweld/base/peers.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

struct ExecuteOptions {
  std::uint64_t memory_limit_bytes = std::uint64_t{2} << 30;  ///< all buffers and statistics of this rank
  int threads = 1;                                            ///< OpenMP threads of this rank
  IoMode io = IoMode::kAuto;
  bool force = false;                         ///< replace an existing OUT
  bool check_finite = false;                  ///< NaN or infinity in an input is an error
  std::uint64_t baseline_resident_bytes = 0;  ///< resident set after MPI_Init, not counted as moeweld's own
  bool write_model_card = true;               ///< README.md
  /// Router rows from a forward pass: before each layer of each pass over the base's weights, on every rank; may throw to end the merge.
  std::function<void(std::size_t step, std::size_t num_steps)> on_layer;
  std::string version;       ///< for the manifest
  std::string command_line;  ///< for the manifest
};

/// How far one rank is.
struct Progress {
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t total_written_bytes = 0;  ///< the rank's share
};
/// Called from the pipeline's thread after every chunk, and on rank 0 while it waits for others that still work: there with the progress of
/// all ranks in rank order (as of a moment ago), on the other ranks with their own alone. May be empty. What it throws ends the merge on
/// all ranks. Must not call collectives.
using ProgressCallback = std::function<void(std::span<const Progress> ranks)>;

/// What one rank did.
struct RankReport {
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  double measure_seconds = 0;           ///< shared and streamed measurements
  double merge_seconds = 0;             ///< the main pass
  double read_wait_seconds = 0;         ///< the pipeline waited for input
  double write_wait_seconds = 0;        ///< … for output buffers
  std::uint64_t peak_memory_bytes = 0;  ///< resident set, less what it was before
};

struct MergeReport {
  std::vector<RankReport> ranks;
  double total_seconds = 0;
  double prepare_seconds = 0;  ///< router rows
  double publish_seconds = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::vector<std::string> warnings;  ///< what only tensor data shows
};

/// Smallest memory limit under which this plan runs with one thread.
std::uint64_t minimum_memory_bytes(const plan::MergePlan& plan);
/// The most a rank will use under this limit. Throws Error(kUsage) if the limit is too small.
std::uint64_t planned_memory_bytes(const plan::MergePlan& plan, std::uint64_t limit_bytes, int threads);

/// Resident set of this process now, and its highest so far (0 where the system does not say).
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();

/// Free space, permissions, OUT's state, inputs unchanged, memory limit: everything that can fail before data is read. Collective. Throws
/// Error with all problems, the same on every rank.
void preflight(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& output_directory,
               const ExecuteOptions& options);

/// Runs the plan: data to OUT.partial/, then index, manifest, README, auxiliary files, then the rename. Collective. The output's bytes
/// depend on the plan alone. On failure OUT does not exist (or is the old one, untouched) and OUT.partial is left or removed as the error
/// says. Throws the same Error on every rank.
MergeReport execute(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Schedule& schedule,
                    const std::string& output_directory, const ExecuteOptions& options, const ProgressCallback& progress);

}  // namespace moeweld::exec
