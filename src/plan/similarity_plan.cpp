#include "moeweld/plan/similarity_plan.h"

#include "moeweld/formats/json.h"
#include "plan/merge_planner.h"

namespace moeweld::plan {

MergePlan make_similarity_plan(const std::vector<config::ModelReference>& references, ModelSource& models) {
  std::string text = "merge_method: linear\nmodels:\n";
  for (const config::ModelReference& reference : references) {
    text += "  - model: " + formats::Json(reference.to_string()).dump() + "\n    parameters: {weight: 1}\n";
  }
  config::ConfigFile file =
      config::parse_config(text, {}, {{.name = "linear", .parameters = {{"weight", true}, {"normalize", false}}}}, {});
  config::MergeConfig& merge = std::get<config::MergeConfig>(file.job);
  merge.align_experts = config::AlignExperts{.neurons = false};
  // What is no expert does not matter here.
  PlanOptions options;
  options.allow_crimes = true;
  options.unsafe_truncate_embeddings = true;
  return plan_merge(file, std::move(merge), models, options, AlignedLayers::kAll);
}

}  // namespace moeweld::plan
