#pragma once
/// Which experts of one layer of two models belong together, and which of their neurons.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "moeweld/align/expert_matrices.h"

namespace moeweld::align {

enum class Match : std::uint8_t { kRouter, kWeights, kBoth };

struct LayerTask {
  std::uint32_t num_experts = 0;
  std::uint32_t num_groups = 1;  ///< of routing: only whole groups change places
  std::uint64_t hidden = 0;
  Match match = Match::kBoth;
  bool neurons = true;  ///< neurons change places, too
  int threads = 1;
  /// Above so many multiplications for all pairs of experts, all are compared by sketches and only the likeliest exactly.
  std::uint64_t exact_pairs = std::uint64_t{1} << 34;
};

/// Cosines of all experts together, from -1 to 1: of centred router rows, and of weights.
struct LayerSimilarity {
  double router = 0;
  double weights = 0;
};

struct LayerMatch {
  std::vector<std::uint32_t> experts;  ///< expert e of the reference goes with expert experts[e] of the other model
  std::vector<std::vector<std::uint32_t>>
      neurons;  ///< [e]: neuron n of e goes with neuron neurons[e][n] of experts[e]; empty unless asked for
  LayerSimilarity before;
  LayerSimilarity after;
};

/// Matches models' layers to one reference. The reference's experts are sketched once. A similarity of experts is the inner product of
/// their centred router rows (less the mean row: adding one vector to all rows changes nothing after softmax), or of their weights with
/// neurons matched, or both, each divided by the models' root mean square lengths. Exact assignment, ties to the lowest index.
///
/// Where all pairs cost more than `exact_pairs`, pairs are first compared by what does not depend on the order of neurons: the Gram matrix
/// of an expert's sketched neurons (a kernel mean under the squared inner product), less the layer's mean; then the pairs so joined, and
/// runners-up that come near, are compared exactly and assigned again.
///
/// Throws Error(kInvalidInput), without a path, where router rows or experts hold NaN, infinity or numbers beyond 1e15. Deterministic on
/// any number of threads and any vector width. Not collective.
class LayerMatcher {
 public:
  /// `router`: [num_experts, hidden]. Both outlive the matcher.
  LayerMatcher(const LayerTask& task, std::span<const float> router, ExpertSource& experts);

  LayerMatch match(std::span<const float> router, ExpertSource& experts);

 private:
  std::vector<std::vector<float>> signatures_of(ExpertSource& experts) const;
  bool compares_all(const ExpertMatrices& expert) const;

  const LayerTask task_;
  const std::span<const float> router_;
  ExpertSource& experts_;
  std::vector<std::vector<float>> signatures_;
};

/// The most memory a matcher takes beyond the experts its sources hold.
std::uint64_t layer_match_bytes(const LayerTask& task, std::uint64_t num_neurons);

}  // namespace moeweld::align
