#include "infer/shares.h"

#include <algorithm>

#include "moeweld/infer/forward.h"

namespace moeweld::infer {

RowRange all_rows(const model::Weight& weight, std::uint32_t group) {
  return {.weight = weight, .second = {}, .begin = 0, .end = weight.rows, .group = group};
}

RowRange all_rows(const model::Weight& weight, const model::Weight& second, std::uint32_t group) {
  return {.weight = weight, .second = second, .begin = 0, .end = weight.rows, .group = group};
}

StageShares share_rows(std::span<const RowRange> whole, int num_ranks) {
  struct Unit {
    std::size_t range = 0;
    std::uint64_t begin = 0, end = 0;
  };
  std::vector<Unit> units;
  std::vector<std::uint64_t> costs;
  for (std::size_t range = 0; range < whole.size(); ++range) {
    for (std::uint64_t begin = 0; begin < whole[range].end; begin += kRowTile) {
      const std::uint64_t end = std::min(whole[range].end, begin + kRowTile);
      units.push_back({range, begin, end});
      costs.push_back((end - begin) * whole[range].bytes_per_row());
    }
  }
  const std::vector<std::uint64_t> begins = split_by_cost(costs, num_ranks);
  StageShares shares;
  shares.ranges_of_rank.resize(static_cast<std::size_t>(num_ranks));
  for (std::size_t rank = 0; rank < shares.ranges_of_rank.size(); ++rank) {
    std::vector<RowRange>& ranges = shares.ranges_of_rank[rank];
    std::size_t last = whole.size();
    for (std::uint64_t unit = begins[rank]; unit < begins[rank + 1]; ++unit) {
      if (units[unit].range != last) {
        last = units[unit].range;
        ranges.push_back(whole[last]);
        ranges.back().begin = units[unit].begin;
      }
      ranges.back().end = units[unit].end;
    }
  }
  return shares;
}

StageShares share_same_rows(std::span<const RowRange> whole, int num_ranks) {
  StageShares shares = share_rows(whole.first(1), num_ranks);
  for (std::vector<RowRange>& ranges : shares.ranges_of_rank) {
    if (ranges.empty()) continue;
    const RowRange first = ranges.front();
    ranges.clear();
    for (const RowRange& range : whole) {
      ranges.push_back(range);
      ranges.back().begin = first.begin;
      ranges.back().end = first.end;
    }
  }
  return shares;
}

std::vector<std::vector<Piece>> pieces_of(const StageShares& shares, std::span<const std::uint64_t> first_column,
                                          std::span<const Piece> rows_of_group) {
  std::vector<std::vector<Piece>> pieces(shares.ranges_of_rank.size());
  for (std::size_t rank = 0; rank < pieces.size(); ++rank) {
    for (const RowRange& range : shares.ranges_of_rank[rank]) {
      Piece piece = rows_of_group[range.group];
      piece.column_begin = first_column[range.group] + range.begin;
      piece.column_end = first_column[range.group] + range.end;
      pieces[rank].push_back(piece);
    }
  }
  return pieces;
}

}  // namespace moeweld::infer
