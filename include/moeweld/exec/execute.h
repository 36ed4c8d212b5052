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
#include "moeweld/exec/statistics.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

class OutputWriter;

/// Who does which part of the output.
enum class Balance : std::uint8_t {
  kStatic,  ///< each rank its share of the schedule
  kDynamic  ///< ranks that are done take from those that are not; static where there is an OutputWriter, whose ranks go together
};

struct ExecuteOptions {
  std::uint64_t memory_limit_bytes = std::uint64_t{2} << 30;  ///< all buffers and statistics of this rank
  int threads = 1;                                            ///< OpenMP threads of this rank
  IoMode io = IoMode::kAuto;
  bool force = false;   ///< replace an existing OUT
  bool resume = false;  ///< continue what OUT.partial holds, if it holds anything; `force` then is about OUT alone
  std::chrono::duration<double> journal_interval{5};  ///< what has been written longer ago is on stable storage and in the journal
  bool in_one_thread = false;                 ///< reads and writes where it computes: for simulations, whose steps must have an order
  bool gather_statistics = false;             ///< of every tensor; needs memory and time, and changes no byte of the output
  bool check_finite = false;                  ///< NaN or infinity in an input is an error
  std::uint64_t baseline_resident_bytes = 0;  ///< resident set after MPI_Init, not counted as moeweld's own
  bool write_model_card = true;               ///< README.md
  Balance balance = Balance::kDynamic;
  std::uint64_t portion_bytes = 0;  ///< what a rank takes at once, of the output; 0: chosen
  OutputWriter* writer = nullptr;   ///< null: every rank's threads write its share, and journal it; not owned
  /// Router rows from a forward pass: before each layer of each pass over the base's weights, on every rank; may throw to end the merge.
  std::function<void(std::size_t step, std::size_t num_steps)> on_layer;
  std::string version;       ///< for the manifest
  std::string command_line;  ///< for the manifest
};

/// How far one rank is.
struct Progress {
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t total_written_bytes = 0;  ///< the rank's share by the schedule
  bool shares_move = false;               ///< others may take of it, and it of theirs
};
/// Called from the pipeline's thread after every chunk, and on rank 0 while it waits for others that still work: there with the progress of
/// all ranks in rank order (as of a moment ago), on the other ranks with their own alone. May be empty. What it throws ends the merge on
/// all ranks. Must not call collectives.
using ProgressCallback = std::function<void(std::span<const Progress> ranks)>;

/// What one rank did.
struct RankReport {
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t taken_bytes = 0;        ///< of what it wrote: another rank's by the schedule
  std::uint64_t num_asked = 0;          ///< times it asked for more work
  double longest_answer_seconds = 0;    ///< from such a question to its answer; computing goes on meanwhile
  double measure_seconds = 0;           ///< shared and streamed measurements
  double merge_seconds = 0;             ///< the main pass
  double read_wait_seconds = 0;         ///< the pipeline waited for input
  double write_wait_seconds = 0;        ///< … for output buffers
  double journal_seconds = 0;           ///< the writer's threads synced files and wrote the journal, so that a restart finds them
  std::uint64_t peak_memory_bytes = 0;  ///< resident set, less what it was before
};

struct MergeReport {
  std::vector<RankReport> ranks;
  std::uint64_t resumed_bytes = 0;  ///< that an earlier run had written
  double total_seconds = 0;
  double prepare_seconds = 0;  ///< router rows
  double publish_seconds = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::vector<std::string> warnings;         ///< what only tensor data shows
  std::vector<TensorStatistics> statistics;  ///< with gather_statistics, on rank 0
};

/// Smallest memory limit under which this plan runs with one thread.
std::uint64_t minimum_memory_bytes(const plan::MergePlan& plan, bool gather_statistics = false);
/// The most a rank will use under this limit. Throws Error(kUsage) if the limit is too small.
std::uint64_t planned_memory_bytes(const plan::MergePlan& plan, std::uint64_t limit_bytes, int threads, bool gather_statistics = false);

/// Resident set of this process now, and its highest so far (0 where the system does not say).
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();

/// Where a run writes until it is done: "out/" → "out.partial".
std::string partial_directory(const std::string& output_directory);
/// Whether a run that ends with this error leaves OUT.partial to be continued: not where the inputs or the configuration are to blame.
bool can_be_resumed(const Error& error);

/// Free space, permissions, OUT's state, inputs unchanged, memory limit: everything that can fail before data is read. Collective. Throws
/// Error with all problems, the same on every rank.
void preflight(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& output_directory,
               const ExecuteOptions& options);

/// With options.resume: whether OUT is there and was made of this plan, so that there is nothing to do. An OUT.partial that only lacks its
/// name gets it. Collective; throws the same Error on every rank.
bool is_published(Peers& peers, Storage& storage, const plan::MergePlan& plan, const std::string& output_directory,
                  const ExecuteOptions& options);

/// Runs the plan: data to OUT.partial/, then index, manifest, README, auxiliary files, then the rename. Collective. The output's bytes
/// depend on the plan alone. With options.resume the work that OUT.partial's journal names as done is not done again; `schedule` is for a
/// run that begins anew. On failure OUT does not exist (or is the old one, untouched), and OUT.partial stays to be continued, unless the
/// inputs are to blame. Throws the same Error on every rank.
MergeReport execute(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Schedule& schedule,
                    const std::string& output_directory, const ExecuteOptions& options, const ProgressCallback& progress);

}  // namespace moeweld::exec
