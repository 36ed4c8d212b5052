#pragma once
/// MergePlan × Schedule → portions: what ranks take one after the other, and from each other.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::plan {

/// The schedule's runs, cut further. All portions together are all runs, in their order.
struct Portions {
  std::vector<FileRun> runs;                 ///< ascending; borders as in a schedule, on multiples of kCutAlignmentBytes
  std::vector<std::size_t> first_run;        ///< per portion, into runs; one entry more than there are portions
  std::vector<std::uint64_t> first_portion;  ///< per rank; world_size + 1 entries. Ranks without runs have none

  bool has_free_borders = true;  ///< who does the two sides of one apart measures next to nothing twice

  std::span<const FileRun> runs_of(std::uint64_t portion) const {
    return std::span(runs).subspan(first_run.at(portion), first_run.at(portion + 1) - first_run.at(portion));
  }
};

/// Portions of about `portion_bytes` of the output, each in proportion to its cost; 0: chosen so that a rank has some dozens of them.
///
/// A tensor that has to be measured, and is not shared by the schedule, is cut only where measuring it on both sides costs little beside
/// the portion: whoever has the two sides apart measures it whole on each. Pure.
Portions make_portions(const MergePlan& plan, const Schedule& schedule, std::uint64_t portion_bytes = 0);

}  // namespace moeweld::plan
