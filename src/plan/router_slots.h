#pragma once
/// Gate modes whose router rows are no plain random numbers: the slot that prepare fills, and which of its rows a router takes.

#include <cstdint>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/plan/merge_plan.h"
#include "plan/input_models.h"

namespace moeweld::plan {

/// All rows that an assembly's routers need.
struct RouterRows {
  const config::ConfigFile& file;
  const config::MoeConfig& config;
  const InputModel& base;
  const std::vector<bool>& sparse_layers;
  std::uint64_t num_rows = 0;    ///< of each router, before rows are repeated
  bool has_shared_gate = false;  ///< the family's shared experts are gated: if there are any, their gate is one more row
};

bool fills_slot(config::GateMode mode);

/// Makes `operation` rows [first_row, …) of `layer`'s group in the plan's slot, which the first call makes. Problems: token ids beyond the
/// base's vocabulary, prompts without a token, a base that the forward pass does not compute, more orthogonal rows than columns.
void take_slot_rows(const RouterRows& rows, Storage& storage, int layer, std::uint64_t first_row, Operation& operation,
                    ProblemList& problems, MergePlan& plan);

}  // namespace moeweld::plan
