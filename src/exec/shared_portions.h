#pragma once
/// The portions that a rank takes from a board, while it works and other ranks take from it.

#include <functional>

#include "exec/rank_pipeline.h"
#include "exec/work_source.h"
#include "moeweld/base/work_board.h"
#include "moeweld/plan/portions.h"

namespace moeweld::exec {

/// Calls `work` with a source of portions: this rank's first, then what the board gives; says on the board when it has ended, well or not.
/// Where the board needs serving `work` runs in a thread of its own, and this one, which alone calls collectives, serves the board and the
/// progress until no rank needs it any more. Counts in the report what was asked and what others' work was done. Not collective, but called
/// by every rank once. Rethrows what `work` threw, or what the progress callback threw while it waited.
void work_on_portions(WorkBoard& board, const plan::Portions& portions, int rank, RankPipeline& pipeline,
                      const std::function<void(WorkSource&)>& work);

}  // namespace moeweld::exec
