#pragma once
/// Which experts each token goes to.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/packing.h"
#include "infer/plane.h"

namespace moeweld::infer {

/// The tokens of one expert, in order, and what its output counts for each.
struct ExpertLoad {
  std::uint32_t expert = 0;
  std::vector<std::uint64_t> tokens;
  std::vector<float> weights;
  std::vector<TokenTile> tiles;  ///< of positions in `tokens`; none crosses a pack
  std::uint64_t first_row = 0;   ///< where its tokens begin when the experts' tokens are laid one after the other
};

/// The `count` highest of a token's logits, highest first, the lower index among equals; a weight for each: its softmax over all logits,
/// divided by the sum of the chosen ones if `normalise`. In float64, rounded once. NaN counts as lowest.
void choose_experts(std::span<const float> logits, std::uint64_t count, bool normalise, std::vector<std::uint32_t>& experts,
                    std::vector<float>& weights);

/// Experts with at least one token, ascending. logits: [tokens, experts].
std::vector<ExpertLoad> route(const Plane& logits, std::uint64_t experts_per_token, bool normalise,
                              std::span<const std::uint64_t> pack_ends);

}  // namespace moeweld::infer
