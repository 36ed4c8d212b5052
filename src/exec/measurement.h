#pragma once
/// Measures tensors that the main pass cannot measure on its way: those shared by several ranks, and those too large to hold.

#include <cstdint>
#include <vector>

#include "exec/rank_pipeline.h"
#include "moeweld/base/peers.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

/// Every measurement of the schedule, in its order. Collective; throws the same Error on every rank.
void measure_shared(Peers& peers, const plan::Schedule& schedule, RankPipeline& pipeline);

/// Measures an operation that this rank has to itself by streaming it once per phase that is left after `decisions`. Not collective.
merge::Decisions measure_alone(std::uint32_t operation, merge::Decisions decisions, RankPipeline& pipeline);

/// Operations that this rank has to itself and whose inputs do not fit its slots: streamed once per phase. Not collective.
void measure_large(const std::vector<std::uint32_t>& operations, RankPipeline& pipeline);

/// Operations of this rank's runs that need measuring, are not decided, and are too large to be held for the main pass.
std::vector<std::uint32_t> find_large(const plan::Schedule& schedule, int rank, const RankPipeline& pipeline);

}  // namespace moeweld::exec
