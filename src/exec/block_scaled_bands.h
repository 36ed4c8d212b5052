#pragma once
/// Bands of kScaleBlock rows of a merged matrix as codes of block-scaled FP8.

#include <span>
#include <vector>

#include "moeweld/merge/measure.h"
#include "moeweld/merge/method.h"

namespace moeweld::exec {

/// One thread at a time; the computation has a team.
class BlockScaledBands {
 public:
  /// `elements`: whole rows from the first of a band on, kScaleBlock of them or up to the end of the matrix; task.output_dtype is F32.
  /// Returns the scales of the band's blocks; the codes are in codes() until the next call.
  std::vector<float> compute(const merge::MethodRow& method, const merge::Task& task, const merge::Decisions& decisions,
                             const merge::Elements& elements);
  std::span<const std::byte> codes() const { return codes_; }

 private:
  std::vector<float> values_;
  std::vector<std::byte> codes_;
};

}  // namespace moeweld::exec
