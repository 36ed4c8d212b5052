#pragma once
/// Whether a router can tell its experts apart.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Largest singular value of `rows` [num_rows, width] over the smallest, float64; infinity where the rows are linearly dependent (to about
/// 1e-7) or more than columns. From the eigenvalues of the Gram matrix: made tridiagonal by Householder's reflections, then bisected by
/// counting sign changes (Golub and Van Loan, 8.3.1 and 8.4.1).
double condition_number(std::span<const double> rows, std::size_t num_rows);

/// The warning that names the layers whose router has a condition number above 5, mergekit-moe's border; nothing if there is none. The row
/// of a shared expert's gate is no part of a router.
std::optional<std::string> degenerate_layers(const plan::Slot& slot, std::span<const double> rows, int threads);

/// The same for routers of random rows, which no slot holds: they are made again, a few columns at a time. The ranks share the routers.
/// Those of more than 4096 rows are left out.
/// Collective; the same on every rank.
std::optional<std::string> degenerate_random_routers(Peers& peers, const plan::MergePlan& plan, int threads);

}  // namespace moeweld::exec
