#include "plan/attention_merge.h"

#include <algorithm>
#include <unordered_map>

#include "moeweld/base/error.h"
#include "moeweld/merge/method.h"
#include "plan/merge_planner.h"

namespace moeweld::plan {

namespace {

config::MergeConfig as_merge(const config::MoeConfig& config, DType output_dtype) {
  const int line = config.line_of(config.lines.contains("attention_merge") ? "attention_merge" : "recipe");
  config::MergeConfig merge;
  merge.merge_method = config.recipe.attention_method;
  merge.merge_method_line = line;
  merge.out_dtype = output_dtype;
  merge.parameters = config.recipe.attention_parameters;
  // Equal weights, unless the configuration says otherwise: every other method states its own.
  if (merge.merge_method == "linear" && config::find(merge.parameters, "weight") == nullptr) {
    merge.parameters.push_back(
        {"weight", {.conditions = {{.filter = {}, .gradient = {config::Scalar(1.0)}, .is_gradient = false}}, .line = line}});
  }
  const merge::MethodRow* method = merge::find_method(merge.merge_method);
  if (method != nullptr && method->inputs.base != merge::Base::kIgnored) {
    merge.base_model = config.base_model;
    merge.base_model_line = config.line_of("base_model");
  }
  config::OutputModule module;
  module.name = "default";
  module.line = line;
  for (const config::Expert& expert : config.experts) module.models.push_back({expert.source_model, {}, expert.line});
  merge.modules.push_back(std::move(module));
  return merge;
}

}  // namespace

std::map<model::TensorKey, Operation> merge_over_experts(const config::ConfigFile& file, const config::MoeConfig& config,
                                                         const InputModels& inputs, DType output_dtype, ModelSource& models,
                                                         const PlanOptions& options, MergePlan& plan) {
  MergePlan dense = plan_merge(file, as_merge(config, output_dtype), models, options);
  std::unordered_map<std::string, std::uint32_t> file_index;
  for (std::uint32_t i = 0; i < plan.input_files.size(); ++i) file_index.emplace(plan.input_files[i].path, i);
  std::unordered_map<std::string, model::TensorKey> keys;
  for (const InputModel& input : inputs.all()) {
    for (const auto& [key, entry] : input.catalog.entries) keys.emplace(model::tensor_name(input.catalog.family, key), key);
  }
  std::map<model::TensorKey, Operation> result;
  for (Operation& operation : dense.operations) {
    // A merge of dense models reads plain bytes.
    for (SourceView& source : operation.sources) source.file = file_index.at(dense.input_files[source.file].path);
    result.emplace(keys.at(operation.name), std::move(operation));
  }
  plan.warnings.insert(plan.warnings.end(), dense.warnings.begin(), dense.warnings.end());
  return result;
}

}  // namespace moeweld::plan
