#pragma once
/// Runs of the output, as a rank gets to know of them, become what it reads.

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "exec/rank_pipeline.h"
#include "exec/units.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

class UnitStream {
 public:
  /// What can be read now.
  struct Batch {
    std::vector<std::uint32_t> to_measure;  ///< operations that have to be decided before any of the units is applied
    /// What is not held and needs one phase only comes twice: whole, in units that only measure, before what is applied.
    std::vector<Unit> units;
  };

  explicit UnitStream(RankPipeline& pipeline) : pipeline_(pipeline) {}

  /// Work that is done after what was added before. A run may continue the last one.
  void add(std::span<const plan::FileRun> runs);
  /// Nothing follows.
  void close() { closed_ = true; }

  /// All that has been added since the last call, but for a tensor that has to be held and could be continued by the next run. Notes in
  /// the pipeline which operations are applied under a guess.
  std::optional<Batch> next();

 private:
  Batch cut(std::span<const plan::FileRun> runs, std::optional<std::uint64_t> stretch_begin);
  /// Where a tensor begins that has to be held and of which the run has the beginning alone; the run's end if there is none.
  std::uint64_t end_of_whole(const plan::FileRun& run) const;

  bool is_cheap_to_read_twice(const plan::Operation& operation) const;
  /// Puts units that measure `operations` before the first ones that need them.
  void add_measuring(const std::set<std::uint32_t>& operations, std::vector<Unit>& units) const;

  RankPipeline& pipeline_;
  std::vector<plan::FileRun> pending_;
  std::optional<plan::FileRun> stretch_;  // what was cut last, from its beginning
  std::set<std::uint32_t> measured_;      // by units that were given out
  bool closed_ = false;
};

}  // namespace moeweld::exec
