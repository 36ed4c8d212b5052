#pragma once
/// Which family an assembly becomes, and why not.

#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/model/family.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// By `architecture`, or else by the sources and their shared experts (the table in docs/configuration.md). Null with a problem, which
/// names the line and the reason, where there is none.
const model::Family* choose_output_family(const config::MoeConfig& config, const InputModels& inputs, bool allow_crimes,
                                          const std::string& config_path, ProblemList& problems);

/// Whether the family's shared expert has a gate of its own.
bool has_shared_gate(const model::Family& family);

/// "Qwen2-MoE", for messages and titles.
std::string title_of(const model::Family& family);

}  // namespace moeweld::plan
