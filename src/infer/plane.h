#pragma once
/// Activations that every rank holds whole, though each computes a part of them.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/base/peers.h"

namespace moeweld::infer {

/// Row-major [rows, columns].
struct Plane {
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;
  std::vector<float> values;

  Plane() = default;
  Plane(std::uint64_t num_rows, std::uint64_t num_columns) : rows(num_rows), columns(num_columns), values(num_rows * num_columns) {}
  float* row(std::uint64_t index) { return values.data() + index * columns; }
  const float* row(std::uint64_t index) const { return values.data() + index * columns; }
};

/// A rectangle of a plane.
struct Piece {
  std::uint64_t row_begin = 0, row_end = 0;
  std::uint64_t column_begin = 0, column_end = 0;
};

/// pieces_of_rank[r]: what rank r has computed, the same on all ranks. After the call every rank has them all. Collective.
void gather(Peers& peers, std::span<const std::vector<Piece>> pieces_of_rank, Plane& plane);

/// Cuts [0, num_units) into `num_ranks` runs of about equal cost: entry r is where rank r's run begins, entry num_ranks is num_units.
std::vector<std::uint64_t> split_by_cost(std::span<const std::uint64_t> costs, int num_ranks);

}  // namespace moeweld::infer
