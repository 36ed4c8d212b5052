#pragma once
/// README.md of an output: what a hub shows of the merged model.

#include <string>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// YAML front matter, what was merged by which methods, and the configuration as written. Depends on the plan alone. `output`: which of
/// plan.outputs it is about; empty where there is one model.
std::string model_card(const plan::MergePlan& plan, const std::string& output, const std::string& version);

}  // namespace moeweld::exec
