#pragma once
/// Router rows that are random and orthonormal.

#include <cstdint>
#include <vector>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Of each layer of the slot, rows_per_layer() rows of normal random numbers made orthonormal (modified Gram-Schmidt in float64, twice, so
/// that rounding does not add up). A function of the seed and the slot alone: every rank makes its own.
std::vector<double> orthogonal_rows(const plan::Slot& slot, std::uint64_t seed, int threads);

}  // namespace moeweld::exec
