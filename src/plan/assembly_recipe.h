#pragma once
/// From a configuration to the experts of the output, one by one.

#include <cstdint>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// What recipes know of the output.
struct RecipeContext {
  std::uint64_t expert_width = 0;  ///< neurons of a whole FFN
  bool renormalises_top_k = true;  ///< whether the output divides the weights of the chosen experts by their sum
};

/// The experts as configured: listed or copies of the base, whole or cut in shards. fine_grained's scales follow 2410.07524: the outputs of
/// all shards of a copy add up to the copy's, and the chosen weights to the dense model's one.
std::vector<ExpertSource> expand_experts(const config::MoeConfig& config, const InputModels& inputs, const RecipeContext& context);

/// The shared experts, whole.
std::vector<ExpertSource> expand_shared_experts(const config::MoeConfig& config, const InputModels& inputs);

/// Which layers get experts. Problems: layers beyond the last one, no layer at all.
std::vector<bool> choose_sparse_layers(const config::MoeConfig& config, int num_layers, const std::string& config_path,
                                       ProblemList& problems);

}  // namespace moeweld::plan
