#pragma once
/// mixed = Σ w_i (x_i − b), then divided, scaled by lambda, and added to b; without a base just Σ w_i x_i. One pass.

#include <cstddef>
#include <cstdint>
#include <span>

namespace moeweld::merge {

/// Computed in float64 whatever the output is: an exact half-way case stays one, where float32 weights would push it to a side.
struct LinearCombination {
  std::span<const double> weights;     ///< one per term, at least one
  std::span<const void* const> terms;  ///< x_i
  const void* base = nullptr;          ///< b, or null
  double divisor = 1;
  double lambda = 1;  ///< used with a base only
};

/// terms and base are decoded tiles of float64. `num` is a multiple of kPadElements.
void combine_linearly(const LinearCombination& combination, std::size_t num, double* output);

/// terms and base are BF16, and so is the output. Same bytes as decoding, combining, and encoding by way of float32.
void combine_linearly_bf16(const LinearCombination& combination, std::size_t num, std::uint16_t* output);

}  // namespace moeweld::merge
