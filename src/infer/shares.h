#pragma once
/// Which rows of a stage's weights each rank multiplies.

#include <span>
#include <vector>

#include "infer/plane.h"
#include "infer/weight_stream.h"

namespace moeweld::infer {

/// ranges_of_rank[r]: rank r's rows, in the order they are read; each begins on a row tile.
struct StageShares {
  std::vector<std::vector<RowRange>> ranges_of_rank;
};

/// A range with all rows.
RowRange all_rows(const model::Weight& weight, std::uint32_t group = 0);
RowRange all_rows(const model::Weight& weight, const model::Weight& second, std::uint32_t group);

/// Cuts the ranges, laid one after the other, at row tiles, so that ranks read about as many bytes.
StageShares share_rows(std::span<const RowRange> whole, int num_ranks);

/// Every range has as many rows as the first; each rank gets the same rows of all of them.
StageShares share_same_rows(std::span<const RowRange> whole, int num_ranks);

/// The pieces of a plane that ranges compute: range r of group g gives columns first_column[g] + r of rows rows_of_group[g].
std::vector<std::vector<Piece>> pieces_of(const StageShares& shares, std::span<const std::uint64_t> first_column,
                                          std::span<const Piece> rows_of_group);

}  // namespace moeweld::infer
