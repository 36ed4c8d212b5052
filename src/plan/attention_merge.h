#pragma once
/// Branch-Train-MiX (https://arxiv.org/abs/2403.07816): everything but the experts' FFN is merged over the experts.

#include <map>

#include "moeweld/config/merge_config.h"
#include "moeweld/model/tensor_key.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// Operations for every tensor of the dense models, by key, as `attention_merge` says: what `merge_method:` over the experts would plan,
/// with the base as the method's base if it has one. Sources point into plan.input_files, which lists the files of all inputs; names are
/// those of the dense models. Adds the merge's warnings to the plan. Throws Error with every problem: models that are not alike,
/// parameters.
std::map<model::TensorKey, Operation> merge_over_experts(const config::ConfigFile& file, const config::MoeConfig& config,
                                                         const InputModels& inputs, DType output_dtype, ModelSource& models,
                                                         const PlanOptions& options, MergePlan& plan);

}  // namespace moeweld::plan
