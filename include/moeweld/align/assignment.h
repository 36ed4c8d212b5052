#pragma once
/// Exact assignment: which column goes with which row, so that the sum of similarities is the largest there is.

#include <cstdint>
#include <span>
#include <vector>

namespace moeweld::align {

/// `similarity`: size x size, row-major, finite. Returns the column of each row. Of several assignments with the same sum the one whose
/// first row has the lowest column, then whose second row has, and so on; so a matrix that cannot tell anything gives the identity. Values
/// are compared on a grid of 2^-30 of the largest, so that rounding does not decide. Shortest augmenting paths (Jonker & Volgenant 1987)
/// on whole numbers, exact. Needs a few numbers per row beyond the matrix. Not collective; throws nothing.
std::vector<std::uint32_t> assign(std::span<const float> similarity, std::size_t size);

/// The same where rows and columns form `num_groups` (a divisor of size) groups of neighbours: whole groups are assigned to groups, and
/// members to members.
std::vector<std::uint32_t> assign_in_groups(std::span<const float> similarity, std::size_t size, std::size_t num_groups);

}  // namespace moeweld::align
