#pragma once
/// Plans of merges: `models:`, `slices:`, `modules:`.

#include "moeweld/plan/planner.h"
#include "plan/expert_alignment.h"

namespace moeweld::plan {

MergePlan plan_merge(const config::ConfigFile& file, config::MergeConfig config, ModelSource& models, const PlanOptions& options,
                     AlignedLayers aligned = AlignedLayers::kOfSeveralModels);

}  // namespace moeweld::plan
