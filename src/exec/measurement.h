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

/// Measures a whole operation on this rank by streaming it once per phase that is left after `decisions`. Not collective.
merge::Decisions measure_alone(std::uint32_t operation, merge::Decisions decisions, RankPipeline& pipeline);

/// Operations whose inputs do not fit this rank's slots, or of which it has only a part: streamed once per phase. Not collective.
void measure_large(const std::vector<std::uint32_t>& operations, RankPipeline& pipeline);

}  // namespace moeweld::exec
