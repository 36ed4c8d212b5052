#pragma once
/// Plans of assemblies: `experts:`.

#include "moeweld/plan/planner.h"

namespace moeweld::plan {

MergePlan plan_assembly(const config::ConfigFile& file, const config::MoeConfig& config, ModelSource& models, const PlanOptions& options);

}  // namespace moeweld::plan
