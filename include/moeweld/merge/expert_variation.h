#pragma once
/// How an assembly changes an expert's matrix: re-drawn neurons (Drop-Upcycling, https://arxiv.org/abs/2502.19261), noise, a factor.

#include <cstdint>
#include <vector>

#include "moeweld/merge/method.h"

namespace moeweld::merge {

/// Neurons are rows of gate and up, columns of down.
enum class NeuronAxis : std::uint8_t { kRows, kColumns };

/// Consecutive neurons with one noise and one factor: shared experts of unlike scales that became one wider expert.
struct NeuronGroup {
  double noise_scale = 0;
  double scale = 1;
  std::uint64_t num_neurons = 0;
};

struct ExpertVariation {
  NeuronAxis axis = NeuronAxis::kRows;
  double redrawn_ratio = 0;      ///< share of the neurons that are drawn anew, from 0 to 1
  std::uint64_t neuron_set = 0;  ///< equal for gate, up and down of one expert: they lose the same neurons
  std::vector<NeuronGroup> groups;
};

/// The method's row. Element i of the matrix becomes (x + noise_scale · N(0, 1)) · scale of its neuron's group, where x is what the matrix
/// holds or, for a re-drawn neuron, N(μ, σ) with mean and (population) standard deviation of all the elements that are replaced. Random
/// numbers are those of (task.seed, task.tensor_key, element); which neurons are re-drawn depends on (task.seed, neuron_set) alone.
const MethodRow& expert_variation();

/// The parameters of a task with this method and one input, whose shape is a matrix.
void set_variation(const ExpertVariation& variation, Task& task);

/// round(ratio · num_neurons) neurons, one byte each: 1 where it is re-drawn.
std::vector<std::uint8_t> redrawn_neurons(std::uint64_t seed, std::uint64_t neuron_set, std::uint64_t num_neurons, double ratio);

}  // namespace moeweld::merge
