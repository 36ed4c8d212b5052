#pragma once
/// float64 sums in sixteen virtual lanes: element i of a block goes to lane i mod 16, whatever the processor's vectors are.

#include <array>
#include <cstddef>
#include <cstdint>

namespace moeweld::merge {

constexpr std::size_t kSumLanes = 16;

using LaneSums = std::array<double, kSumLanes>;

/// Lanes added in order.
inline double fold_lanes(const LaneSums& lanes) {
  double sum = lanes[0];
  for (std::size_t i = 1; i < kSumLanes; ++i) sum += lanes[i];
  return sum;
}

/// Adds a_i · b_i, products in float64. `num` is a multiple of kPadElements; pad with zeros, which change no bit.
void add_products(const double* a, const double* b, std::size_t num, LaneSums& lanes);

/// The three products of two BF16 inputs at once: a·a, a·b, b·b.
void add_products_bf16(const std::uint16_t* a, const std::uint16_t* b, std::size_t num, LaneSums& aa, LaneSums& ab, LaneSums& bb);

/// Adds |a_i|.
void add_magnitudes(const double* a, std::size_t num, LaneSums& lanes);

}  // namespace moeweld::merge
