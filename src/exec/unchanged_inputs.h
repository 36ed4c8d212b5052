#pragma once
/// Whether a plan's inputs still are what was planned with.

#include <string>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// Throws Error(kInvalidInput) with every input file that is gone, or has another size or modification time than the plan saw. `since` is
/// what happened then, for the message: "the merge was planned".
void require_unchanged_inputs(Storage& storage, const plan::MergePlan& plan, const std::string& since);

}  // namespace moeweld::exec
