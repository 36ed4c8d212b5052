#pragma once
/// A plan for people and for machines.

#include <cstdint>
#include <iosfwd>
#include <string>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::plan {

/// The table of `moeweld plan`: title, tensors, bytes in and out, per-rank load, memory, notes, what is dropped and why. `memory_bytes`:
/// what a rank will need at most under its limit.
std::string plan_text(const MergePlan& plan, const Schedule& schedule, std::uint64_t memory_bytes, bool verbose);

/// JSON with "schema": "moeweld.plan/1": files, tensors, operations with their parameters and sources, per-rank loads, notes. Streams: a
/// plan of 10^5 operations does not need gigabytes.
void write_plan_json(std::ostream& out, const MergePlan& plan, const Schedule& schedule, std::uint64_t memory_bytes);

}  // namespace moeweld::plan
