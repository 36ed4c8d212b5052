#pragma once
/// Causal attention with grouped heads, each sequence by itself.

#include <cstdint>
#include <vector>

#include "infer/packing.h"
#include "infer/plane.h"
#include "moeweld/model/transformer.h"

namespace moeweld::infer {

/// One head of one sequence.
struct AttentionUnit {
  std::size_t member = 0;  ///< index into Batch::members
  std::uint64_t head = 0;
};

/// All units of a batch, and which of them are whose: units [begins[r], begins[r + 1]) are rank r's.
struct AttentionShares {
  std::vector<AttentionUnit> units;
  std::vector<std::uint64_t> begins;
  std::vector<std::vector<Piece>> pieces_of_rank;  ///< of the [tokens, heads * head_dim] result
};
AttentionShares share_attention(const Batch& batch, const model::Transformer& model, int num_ranks);

/// qkv: [tokens, (heads + 2 kv_heads) * head_dim], rotated, the heads of q, then those of k, then those of v. Writes this rank's units.
void attend(const Batch& batch, const model::Transformer& model, std::uint64_t sliding_window, const AttentionShares& shares, int rank,
            int threads, const Plane& qkv, Plane& result);

}  // namespace moeweld::infer
