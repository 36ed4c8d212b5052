#pragma once
/// Applies a linear combination to elements of any dtypes: the one application of all methods that are "coefficients, then a sum".

#include <cstddef>
#include <vector>

#include "moeweld/merge/task.h"

namespace moeweld::merge {

struct Combination {
  std::vector<int> terms;       ///< indices into Task::inputs
  std::vector<double> weights;  ///< one per term
  int base = -1;  ///< index into Task::inputs; −1: plain sum of w_i x_i, else base + lambda · (Σ w_i (x_i − base)) / divisor
  double divisor = 1;
  double lambda = 1;
};

/// Same bytes for any cut of the elements. Thread-safe.
void apply_combination(const Task& task, const Combination& combination, const Elements& elements, std::byte* output);

}  // namespace moeweld::merge
