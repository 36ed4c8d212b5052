#pragma once
/// The float64 sums of statistics, in the lanes of lane_sums.h.

#include <cstddef>

#include "merge/kernels/lane_sums.h"

namespace moeweld::merge {

struct ValueLanes {
  LaneSums squares{};
  LaneSums dot{};
  LaneSums squared_difference{};
  LaneSums max_absolute{};
};

/// Adds values · values, values · reference and (values - reference)², and raises the largest magnitudes. All values are finite. `num` is a
/// multiple of kPadElements.
void add_values(const double* values, const double* reference, std::size_t num, ValueLanes& lanes);

/// lowest and highest, element by element, of themselves and of values - reference.
void widen_bounds(const double* values, const double* reference, std::size_t num, double* lowest, double* highest);

}  // namespace moeweld::merge
