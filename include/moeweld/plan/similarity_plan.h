#pragma once
/// For `moeweld similarity`: where the experts of a mixture are, or of two.

#include <vector>

#include "moeweld/config/model_reference.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

/// A plan whose alignments name the experts of one model, or of two; it is not to be carried out. Throws Error: models that cannot be read,
/// without experts, or with unlike ones.
MergePlan make_similarity_plan(const std::vector<config::ModelReference>& references, ModelSource& models);

}  // namespace moeweld::plan
