#pragma once
/// Routing in groups: a token first chooses groups of neighbouring experts, then experts in them.

#include <cstdint>

#include "moeweld/formats/json.h"
#include "moeweld/model/family.h"

namespace moeweld::model {

/// Number of groups that experts must not leave (n_group of DeepSeek-V2 and V3, Kimi K2, GLM-4.5); 1 where routing looks at all experts at
/// once: no n_group, topk_method greedy, or all groups chosen. Throws Error(kInvalidInput) where n_group does not divide `num_experts`.
std::uint32_t routing_groups(const Family& family, const formats::Json& config, std::uint32_t num_experts);

}  // namespace moeweld::model
