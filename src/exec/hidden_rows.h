#pragma once
/// Router rows from the base's forward pass over the experts' prompts.

#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// Of each layer and expert: the slot's state, mean over the positive prompts less the mean over the negative ones, divided by its length
/// (by 1e-8 where it is shorter). Rows as the slot's shape says, in float64, the same bits on any number of ranks and threads and any
/// memory limit. Prompts that occur several times run once. `blas_core`: what the products ran on. Collective; throws the same Error on
/// every rank.
std::vector<double> hidden_rows(Peers& peers, Storage& storage, const plan::Slot& slot, const ExecuteOptions& options,
                                std::string& blas_core);

/// What forward() is given for this slot: every prompt once, in order of first use.
std::vector<std::vector<std::int64_t>> distinct_prompts(const plan::Slot& slot);

}  // namespace moeweld::exec
