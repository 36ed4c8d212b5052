#pragma once
/// What can be wrong with experts that are added to a mixture.

#include <span>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/plan/planner.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// inputs[0] is the mixture. Sources are dense models, or mixtures of which an expert is named; layers, widths and activation must be the
/// mixture's. Problems name the line; notes and warnings go to the plan.
void check_added_experts(const config::ConfigFile& file, const config::MoeConfig& config, const InputModels& inputs,
                         std::span<const ExpertSource> experts, const PlanOptions& options, ProblemList& problems, MergePlan& plan);

}  // namespace moeweld::plan
