#pragma once
/// plan --sbatch: the first lines of a batch script for SLURM.

#include <string>

#include "moeweld/plan/job_estimate.h"

namespace moeweld::app {

/// "#!/bin/bash", what the numbers rest on, and #SBATCH lines. The time limit is half as much again as the estimate, and the five minutes
/// before it in which the state is saved.
std::string batch_header(const plan::MergePlan& plan, const plan::JobEstimate& estimate, const std::string& rates);

}  // namespace moeweld::app
