#pragma once
/// The main pass of one rank: read → combine → write, every unit once.

#include <span>
#include <string>
#include <vector>

#include "exec/rank_pipeline.h"
#include "exec/window_writer.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

/// Computes and writes this rank's runs into `directory`. Tensors that need measuring and are not in pipeline.decided are held in their
/// slots until their last unit is there. Not collective. Returns the digests of what was written.
std::vector<RunDigests> run_main_pass(std::span<const plan::FileRun> runs, const std::string& directory, RankPipeline& pipeline);

}  // namespace moeweld::exec
