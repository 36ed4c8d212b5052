#pragma once
/// From a configuration to the experts of the output, one by one.

#include <cstdint>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "plan/expert_operations.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// The experts as configured: listed or copies of the base, whole or cut in G shards. fine_grained's factor (2410.07524) is G: the outputs
/// of all shards of a copy add up to the copy's, and every output family is written so that the weights of the chosen experts add up to 1.
std::vector<ExpertSource> expand_experts(const config::MoeConfig& config, const InputModels& inputs);

/// The shared experts, whole.
std::vector<ExpertSource> expand_shared_experts(const config::MoeConfig& config, const InputModels& inputs);

/// Which layers get experts. Problems: layers beyond the last one, no layer at all.
std::vector<bool> choose_sparse_layers(const config::MoeConfig& config, int num_layers, const std::string& config_path,
                                       ProblemList& problems);

}  // namespace moeweld::plan
