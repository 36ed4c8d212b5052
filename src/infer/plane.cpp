#include "infer/plane.h"

#include <algorithm>
#include <cstring>

#include "moeweld/base/error.h"

namespace moeweld::infer {

void gather(Peers& peers, std::span<const std::vector<Piece>> pieces_of_rank, Plane& plane) {
  if (peers.size() == 1) return;
  std::vector<std::byte> mine;
  for (const Piece& piece : pieces_of_rank[static_cast<std::size_t>(peers.rank())]) {
    const std::size_t row_bytes = (piece.column_end - piece.column_begin) * sizeof(float);
    for (std::uint64_t row = piece.row_begin; row < piece.row_end; ++row) {
      const auto* source = reinterpret_cast<const std::byte*>(plane.row(row) + piece.column_begin);
      mine.insert(mine.end(), source, source + row_bytes);
    }
  }
  const auto all = peers.all_gather(mine);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (rank == static_cast<std::size_t>(peers.rank())) continue;
    std::size_t done = 0;
    for (const Piece& piece : pieces_of_rank[rank]) {
      const std::size_t row_bytes = (piece.column_end - piece.column_begin) * sizeof(float);
      if (done + row_bytes * (piece.row_end - piece.row_begin) > all[rank].size())
        throw Error(ErrorCode::kInternal, "a rank sent fewer activations than its share");
      for (std::uint64_t row = piece.row_begin; row < piece.row_end; ++row) {
        std::memcpy(plane.row(row) + piece.column_begin, all[rank].data() + done, row_bytes);
        done += row_bytes;
      }
    }
    if (done != all[rank].size()) throw Error(ErrorCode::kInternal, "a rank sent more activations than its share");
  }
}

std::vector<std::uint64_t> split_by_cost(std::span<const std::uint64_t> costs, int num_ranks) {
  std::uint64_t total = 0;
  for (const std::uint64_t cost : costs) total += cost;
  const auto ranks = static_cast<std::uint64_t>(num_ranks);
  std::vector<std::uint64_t> begins(ranks + 1, costs.size());
  begins[0] = 0;
  std::uint64_t rank = 1;
  std::uint64_t before = 0;
  for (std::uint64_t unit = 0; unit < costs.size() && rank < ranks; ++unit) {
    // A unit belongs to the rank in whose share its middle lies. Twice everything, so that halves are whole.
    const auto middle = static_cast<unsigned __int128>(2 * before + costs[unit]) * ranks;
    while (rank < ranks && middle >= static_cast<unsigned __int128>(2 * total) * rank) begins[rank++] = unit;
    before += costs[unit];
  }
  return begins;
}

}  // namespace moeweld::infer
