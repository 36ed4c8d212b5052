#pragma once
/// Whether a router can tell its experts apart.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Largest singular value of `rows` [num_rows, width] over the smallest, float64; infinity where the rows are linearly dependent (to about
/// 1e-8) or more than columns. From the eigenvalues of the Gram matrix, by Jacobi's rotations in a fixed order.
double condition_number(std::span<const double> rows, std::size_t num_rows);

/// The warning that names the layers whose router has a condition number above 5, mergekit-moe's border; nothing if there is none. The row
/// of a shared expert's gate is no part of a router.
std::optional<std::string> degenerate_layers(const plan::Slot& slot, std::span<const double> rows, int threads);

}  // namespace moeweld::exec
