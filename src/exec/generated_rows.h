#pragma once
/// Values that are made, not read: random numbers, constants, rows of a slot.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/merge/task.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Elements [elements.first_element, + num_elements) of a kRandomFill, kConstant or kSlot operation, in its output type. `slot_rows` is
/// what prepare made, one entry per slot. Values are made in float64 and rounded by the one conversion that everything else goes through.
void generate_rows(const plan::MergePlan& plan, const plan::Operation& operation, const std::vector<std::vector<double>>& slot_rows,
                   const merge::Elements& elements, std::byte* target);

/// Random numbers of a kRandomFill operation from element `first` on, before rows are repeated.
void fill_random(std::uint64_t seed, const plan::Operation& operation, std::uint64_t first, std::span<double> values);

}  // namespace moeweld::exec
