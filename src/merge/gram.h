#pragma once
/// Gram matrix of all inputs of a task: the measurement that combinations of directions need.

#include <vector>

#include "moeweld/merge/task.h"

namespace moeweld::merge {

/// Upper triangle of the K x K Gram matrix over one block's elements, row-major: (0,0), (0,1), …, (K−1,K−1). Products and sums in float64.
void gram_of_block(const Task& task, const Elements& elements, std::vector<double>& sums);

}  // namespace moeweld::merge
