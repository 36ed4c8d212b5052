#pragma once
/// How sequences are laid one after the other, without padding, so that what one BLAS call sees depends on the sequences alone.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/infer/forward.h"

namespace moeweld::infer {

/// A run of rows of activations that one BLAS call multiplies.
struct TokenTile {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// Sequences that are never separated: tiles of tokens do not cross packs, so it does not matter how many packs run at once.
struct Pack {
  std::size_t first_sequence = 0;
  std::size_t num_sequences = 0;
  std::uint64_t num_tokens = 0;
};

/// Takes sequences in order; a pack ends once it has kPackTokens.
constexpr std::uint64_t kPackTokens = 512;
std::vector<Pack> make_packs(std::span<const TokenIds> sequences);

/// Tiles of at most kTokenTile rows; no tile crosses one of the ascending borders (the last is the number of rows).
std::vector<TokenTile> make_tiles(std::span<const std::uint64_t> borders);

/// Some packs that run through the model together.
struct Batch {
  struct Member {
    std::size_t sequence = 0;  ///< index into all sequences
    std::uint64_t begin = 0;   ///< first row of activations
    std::uint64_t end = 0;
  };
  std::vector<Member> members;
  std::vector<std::uint64_t> pack_ends;  ///< ascending rows
  std::vector<TokenTile> tiles;
  std::uint64_t num_tokens = 0;
  std::uint64_t longest = 0;
};
Batch make_batch(std::span<const TokenIds> sequences, std::span<const Pack> packs);

}  // namespace moeweld::infer
