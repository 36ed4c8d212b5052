#pragma once
/// What can be wrong with an assembly, and what it is made of, once its experts and its family are known.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/model/family.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// An assembly as decided, before its tensors are planned. inputs[0] is the base.
struct Assembly {
  const config::ConfigFile& file;
  const config::MoeConfig& config;
  const InputModels& inputs;
  std::span<const ExpertSource> experts;
  std::span<const ExpertSource> shared;
  const std::vector<bool>& sparse_layers;
  const model::Family& family;
};

/// Layers with the prefix "model".
int num_layers_of(const InputModel& input);
/// Neurons of the FFN, 0 where the model has none.
std::uint64_t ffn_width(const InputModel& input);

/// hidden_act, silu where config.json is silent.
std::string activation_of(const InputModel& input);
/// "FFN of models/code, noise of 0.1".
std::string description_of(const ExpertSource& expert, const InputModel& input);

/// Numbers of layers, widths, activations, what experts cannot bring, degenerate experts and prompts, shards. Problems name the line; notes
/// and warnings go to the plan.
void check_assembly(const Assembly& assembly, const PlanOptions& options, ProblemList& problems, MergePlan& plan);

/// What comes from which model, a line each.
std::vector<std::string> composition_of(const Assembly& assembly);

}  // namespace moeweld::plan
