#pragma once
/// mixed = Σ w_i (x_i − b), then divided, scaled by lambda, and added to b; without a base just Σ w_i x_i. One pass.

#include <cstddef>
#include <cstdint>
#include <span>

namespace moeweld::merge {

template <typename T>
struct LinearCombination {
  std::span<const T> weights;         ///< one per term
  std::span<const void* const> terms; ///< x_i, decoded tiles of T
  const void* base = nullptr;         ///< b, or null
  T divisor = 1;
  T lambda = 1;                       ///< used with a base only
};

/// `num` is a multiple of kPadElements.
void combine_linearly(const LinearCombination<float>& combination, std::size_t num, float* output);
void combine_linearly(const LinearCombination<double>& combination, std::size_t num, double* output);

/// terms and base are BF16, and so is the output. Same bytes as decoding, combining and encoding.
void combine_linearly_bf16(const LinearCombination<float>& combination, std::size_t num, std::uint16_t* output);

}  // namespace moeweld::merge
