#pragma once
/// `experts:` over a base that is a mixture already: the base with more experts.

#include "moeweld/config/merge_config.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

/// Whether the base has experts of a known family, so that a configuration's experts are added to them. A base that cannot be read is none.
bool adds_to_mixture(const config::MoeConfig& config, ModelSource& models);

/// Throws Error with every problem found.
MergePlan plan_addition(const config::ConfigFile& file, const config::MoeConfig& config, ModelSource& models, const PlanOptions& options);

}  // namespace moeweld::plan
