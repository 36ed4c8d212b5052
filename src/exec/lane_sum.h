#pragma once
/// A dot product that compilers can vectorise and that is the same on every processor.

#include <array>
#include <cstddef>
#include <span>

namespace moeweld::exec {

/// Sum of a[i] · b[i] in eight lanes, folded in lane order. Equally long spans.
inline double lane_dot(std::span<const double> a, std::span<const double> b) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < a.size(); ++i) sums[i % kLanes] += a[i] * b[i];
  double sum = 0;
  for (const double lane : sums) sum += lane;
  return sum;
}

}  // namespace moeweld::exec
