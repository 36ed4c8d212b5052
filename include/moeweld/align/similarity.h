#pragma once
/// How alike the experts of a layer are, each with each.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/align/expert_matrices.h"

namespace moeweld::align {

/// [num_experts, num_experts], row-major: expert i of the first model with expert j of the second.
struct ExpertSimilarities {
  std::vector<float> router;   ///< cosines of router rows, as they are
  std::vector<float> weights;  ///< cosines of gate, up and down together, neurons in their places
  bool is_sketched = false;    ///< weights from random projections: off by about 0.004
};

/// Above so many multiplications for all pairs, weights are sketched.
constexpr std::uint64_t kExactSimilarities = std::uint64_t{1} << 32;

/// `router`: [num_experts, hidden]. `other` is another source, maybe of the same model. A cosine with what is all zero is 0. The same on
/// any number of threads and any vector width. Not collective.
ExpertSimilarities expert_similarities(std::uint32_t num_experts, std::span<const float> router, ExpertSource& experts,
                                       std::span<const float> other_router, ExpertSource& other, int threads,
                                       std::uint64_t exact_similarities = kExactSimilarities);

/// The most memory that takes beyond the experts its sources hold.
std::uint64_t similarity_bytes(std::uint32_t num_experts, std::uint64_t num_neurons);

}  // namespace moeweld::align
