#include "moeweld/plan/planner.h"

#include "moeweld/formats/json.h"
#include "plan/merge_planner.h"
#include "plan/moe_planner.h"

namespace moeweld::plan {

const formats::Checkpoint& ModelSource::get(const config::ModelReference& reference) {
  const std::string directory = formats::locate_model(storage_, environment_, reference.path, reference.revision);
  const auto known = checkpoints_.find(directory);
  if (known != checkpoints_.end()) return known->second;
  return checkpoints_.emplace(directory, formats::read_checkpoint(storage_, directory)).first->second;
}

MergePlan make_plan(const config::ConfigFile& config, ModelSource& models, const PlanOptions& options) {
  MergePlan plan = std::holds_alternative<config::MergeConfig>(config.job)
                       ? plan_merge(config, std::get<config::MergeConfig>(config.job), models, options)
                       : plan_assembly(config, std::get<config::MoeConfig>(config.job), models, options);
  plan.notes.insert(plan.notes.begin(), config.notes.begin(), config.notes.end());
  plan.warnings.insert(plan.warnings.begin(), config.warnings.begin(), config.warnings.end());
  return plan;
}

MergePlan make_similarity_plan(const std::vector<config::ModelReference>& references, ModelSource& models) {
  std::string text = "merge_method: linear\nmodels:\n";
  for (const config::ModelReference& reference : references) {
    text += "  - model: " + formats::Json(reference.to_string()).dump() + "\n    parameters: {weight: 1}\n";
  }
  config::ConfigFile file =
      config::parse_config(text, {}, {{.name = "linear", .parameters = {{"weight", true}, {"normalize", false}}}}, {});
  config::MergeConfig& merge = std::get<config::MergeConfig>(file.job);
  merge.align_experts = config::AlignExperts{.neurons = false, .also_single = true};
  PlanOptions options;
  options.allow_crimes = true;
  options.unsafe_truncate_embeddings = true;
  return plan_merge(file, std::move(merge), models, options);
}

}  // namespace moeweld::plan
