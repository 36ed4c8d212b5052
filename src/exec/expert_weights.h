#pragma once
/// How much weight a layer's router gives each of its experts: `moeweld extract --router-weighted`.

#include <vector>

#include "exec/rank_pipeline.h"
#include "moeweld/base/peers.h"

namespace moeweld::exec {

/// Of one router, rows [experts, hidden] in float64: the norms of the rows less their mean, divided by the sum of the norms; equal weights
/// where all rows are the same. Throws Error(kInvalidInput) where a row is not finite.
std::vector<double> router_norm_weights(const std::vector<double>& rows, std::size_t num_experts);

/// Fills a slot of Kind::kExpertWeights: for each of its layers one weight per expert. Collective; rank 0 reads.
std::vector<double> expert_weights(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Slot& slot, IoMode io);

/// Decides the operations that are averages by such a slot.
void decide_expert_weights(RankPipeline& pipeline);

}  // namespace moeweld::exec
