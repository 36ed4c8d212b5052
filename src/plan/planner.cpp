#include "moeweld/plan/planner.h"

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

}  // namespace moeweld::plan
