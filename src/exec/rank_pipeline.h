#pragma once
/// What one rank's stages share: buffers, open inputs, decisions already made, and the counters of the report.

#include <map>
#include <set>
#include <span>
#include <vector>

#include "exec/buffers.h"
#include "exec/journal.h"
#include "exec/statistics_gatherer.h"
#include "exec/unit_reader.h"
#include "exec/world_progress.h"
#include "moeweld/exec/execute.h"
#include "moeweld/merge/measure.h"

namespace moeweld::exec {

struct RankPipeline {
  RankPipeline(Storage& file_storage, const plan::MergePlan& merge_plan, const ExecuteOptions& execute_options,
               WorldProgress& world_progress)
      : storage(file_storage),
        plan(merge_plan),
        options(execute_options),
        progress(world_progress),
        sizes(plan_buffers(merge_plan, execute_options.memory_limit_bytes, execute_options.threads, execute_options.gather_statistics)),
        slots(sizes.slot_bytes, sizes.num_slots),
        windows(sizes.window_bytes, sizes.num_windows),
        files(file_storage, merge_plan, execute_options.io) {}

  Storage& storage;
  const plan::MergePlan& plan;
  const ExecuteOptions& options;
  WorldProgress& progress;
  BufferSizes sizes;
  BufferPool slots;
  BufferPool windows;
  InputFiles files;
  std::set<std::uint32_t> speculative;                ///< operations that are applied under a guess
  std::map<std::uint32_t, merge::Decisions> decided;  ///< by operation: measured before the main pass
  std::vector<std::vector<double>> slot_rows;         ///< by slot: filled by prepare
  std::set<std::uint32_t> with_nan_codes;             ///< operations that read FP8 codes of NaN
  StatisticsPart statistics;                          ///< of what the main pass computed, with gather_statistics
  RankReport report;
  std::uint64_t written_bytes = 0;  ///< so far
  Journal* journal = nullptr;

  const merge::MethodRow& method_of(const plan::Operation& operation) const { return merge::method_table()[operation.method]; }
  void report_progress() { progress.update(report.read_bytes, written_bytes); }
  /// Decisions of these operations go to the journal, if there is one.
  void remember(std::span<const std::uint32_t> operations);
  /// What the writer tells the journal.
  Keeping keeping() const;
  /// Counts (or, with check_finite, refuses) NaN and infinity in freshly read data.
  void look_at_values(const LoadedUnit& unit);
};

}  // namespace moeweld::exec
