#pragma once
/// The main pass of one rank: read → combine → write, every unit once.

#include <string>
#include <vector>

#include "exec/rank_pipeline.h"
#include "exec/window_writer.h"
#include "exec/work_source.h"

namespace moeweld::exec {

/// Computes and writes what `work` gives, in its order, into `directory`. Tensors that need measuring and are not in pipeline.decided are
/// held in their slots until their last unit is there, or measured before they are read if they cannot be. Not collective. Returns the
/// digests of what was written.
std::vector<RunDigests> run_main_pass(WorkSource& work, const std::string& directory, RankPipeline& pipeline);

}  // namespace moeweld::exec
