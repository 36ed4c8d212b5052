#pragma once
/// `align_experts:` of a merge of mixtures.

#include <cstdint>

namespace moeweld::config {

/// Experts, and the neurons within them, come in an arbitrary order; models are brought into that of the base before they are merged.
struct AlignExperts {
  /// What experts are recognised by.
  enum class Match : std::uint8_t { kRouter, kWeights, kBoth };
  Match match = Match::kBoth;
  bool neurons = true;  ///< neurons are brought into order, too
  int line = 0;
};

}  // namespace moeweld::config
