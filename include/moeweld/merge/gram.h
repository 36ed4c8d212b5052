#pragma once
/// Inner products of inputs: the one measurement that every "coefficients, then a sum" method needs.

#include <vector>

#include "moeweld/merge/task.h"

namespace moeweld::merge {

/// Sums of one block: the upper triangle of the K × K Gram matrix, row by row, float64. Element i of the block goes to lane i mod 16, lanes
/// are folded in order. `sums` is empty on entry.
void measure_gram(const Task& task, const Elements& block, std::vector<double>& sums);

}  // namespace moeweld::merge
