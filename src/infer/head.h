#pragma once
/// Logits, in tiles of the vocabulary: what they say is kept, they are not.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/product.h"
#include "infer/shares.h"
#include "moeweld/infer/forward.h"

namespace moeweld::infer {

/// One token's logits within one row tile of the head.
struct HeadPartial {
  double sum = 0;  ///< Σ exp(logit - highest)
  float highest = 0;
  std::uint32_t id = 0;  ///< of the highest, lowest among equals
  std::uint32_t is_finite = 1;
  std::uint32_t unused = 0;
};

/// What all of the vocabulary says of one token.
struct HeadResult {
  double log_sum = 0;  ///< log Σ exp(logit)
  float highest = 0;
  std::uint32_t id = 0;
  bool is_finite = true;
};

/// Partials of a token in the order of the vocabulary.
HeadResult fold_partials(std::span<const HeadPartial> partials);

/// Runs the final-normed activations through the head and appends to `results` (one entry for each member of the batch). Collective.
void run_head(Peers& peers, const model::Transformer& model, const Batch& batch, std::span<const TokenIds> sequences, const Plane& x,
              const StageShares& shares, ProductLoop& loop, bool want_last_logits, int threads, std::span<SequenceResult> results);

}  // namespace moeweld::infer
