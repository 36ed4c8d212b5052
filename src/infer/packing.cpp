#include "infer/packing.h"

#include <algorithm>

namespace moeweld::infer {

std::vector<Pack> make_packs(std::span<const TokenIds> sequences) {
  std::vector<Pack> packs;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (packs.empty() || packs.back().num_tokens >= kPackTokens)
      packs.push_back({.first_sequence = i, .num_sequences = 0, .num_tokens = 0});
    ++packs.back().num_sequences;
    packs.back().num_tokens += sequences[i].size();
  }
  return packs;
}

std::vector<TokenTile> make_tiles(std::span<const std::uint64_t> borders) {
  std::vector<TokenTile> tiles;
  std::uint64_t begin = 0;
  for (const std::uint64_t border : borders) {
    for (; begin < border; begin = tiles.back().end) tiles.push_back({begin, std::min(border, begin + kTokenTile)});
  }
  return tiles;
}

Batch make_batch(std::span<const TokenIds> sequences, std::span<const Pack> packs) {
  Batch batch;
  for (const Pack& pack : packs) {
    for (std::size_t i = 0; i < pack.num_sequences; ++i) {
      const std::size_t sequence = pack.first_sequence + i;
      const std::uint64_t length = sequences[sequence].size();
      batch.members.push_back({sequence, batch.num_tokens, batch.num_tokens + length});
      batch.num_tokens += length;
      batch.longest = std::max(batch.longest, length);
    }
    batch.pack_ends.push_back(batch.num_tokens);
  }
  batch.tiles = make_tiles(batch.pack_ends);
  return batch;
}

}  // namespace moeweld::infer
