#pragma once
/// Operations that a rank applies under a guess instead of measuring them first (merge::Speculation).

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "exec/buffers.h"
#include "exec/units.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

/// Elements that are read for a guess: chunks spread over the tensor, enough of them that no part of it decides alone, long enough for a
/// disk.
std::vector<Piece> sample_chunks(const plan::MergePlan& plan, std::uint32_t operation);

/// Whether the buffers could serve a guess of this operation if one rank has all of it: its result has to be held.
bool may_speculate(const plan::Operation& operation, const BufferSizes& sizes);

/// Operations wholly in `runs` that are applied under a guess.
std::vector<std::uint32_t> find_speculative(const plan::MergePlan& plan, std::span<const plan::FileRun> runs, const BufferSizes& sizes);

}  // namespace moeweld::exec
