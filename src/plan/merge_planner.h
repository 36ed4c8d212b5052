#pragma once
/// Plans of merges: `models:`, `slices:`, `modules:`.

#include "moeweld/plan/planner.h"

namespace moeweld::plan {

MergePlan plan_merge(const config::ConfigFile& file, config::MergeConfig config, ModelSource& models, const PlanOptions& options);

}  // namespace moeweld::plan
