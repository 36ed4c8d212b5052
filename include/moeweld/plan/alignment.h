#pragma once
/// A plan with alignments, once their orders are known.

#include <cstdint>
#include <vector>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::plan {

/// A copy of `plan` whose operations read every model's experts in the order found: `orders` has plan.num_orders numbers, as Alignment
/// describes them. Which bytes are read changes, how many do not: schedules and memory stay as planned. Throws Error(kInternal) where a
/// run of them is no permutation.
MergePlan with_orders(const MergePlan& plan, std::vector<std::uint32_t> orders);

}  // namespace moeweld::plan
