#pragma once
/// Which neurons of two experts belong together.

#include <cstdint>
#include <vector>

#include "moeweld/align/expert_matrices.h"

namespace moeweld::align {

struct NeuronMatch {
  /// Neuron n of the first expert goes with neuron order[n] of the second; empty where neurons keep their places.
  std::vector<std::uint32_t> order;
  double product = 0;  ///< inner product of the two experts, all 3·neurons·hidden numbers, in that order
};

/// Experts with at least so many multiplications in the full product of their neurons are sketched first.
constexpr std::uint64_t kSketchedProducts = std::uint64_t{1} << 30;

/// The order of `b`'s neurons with the largest inner product: exact assignment on G_A G_Bᵀ + U_A U_Bᵀ + D_Aᵀ D_B. Where that product has
/// `sketched_products` multiplications or more, the assignment is made on sketches and confirmed on exact products of the neurons it joins
/// and of each neuron's runner-up; if more than one neuron in a hundred has nothing like a partner (cosine below 0.4), on the full
/// product after all. Shapes are equal. Not collective. The same on any number of threads and any vector width.
NeuronMatch match_neurons(const ExpertMatrices& a, const ExpertMatrices& b, int threads,
                          std::uint64_t sketched_products = kSketchedProducts);

/// The inner product with all neurons where they are.
NeuronMatch keep_neurons(const ExpertMatrices& a, const ExpertMatrices& b, int threads);

/// Sum of squares of an expert.
double squared_norm(const ExpertMatrices& expert, int threads);

/// The most memory match_neurons takes beyond its inputs.
std::uint64_t neuron_match_bytes(std::uint64_t num_neurons);

}  // namespace moeweld::align
