#pragma once
/// Sparsify, weigh, elect a sign per element, combine the terms of that sign. One pass.

#include <cstddef>
#include <cstdint>
#include <span>

#include "merge/kernels/keep_rule.h"

namespace moeweld::merge {

template <typename T>
struct ElectionTerm {
  KeepRule rule;
  T coefficient = 0;  ///< weight, times the rescaling where there is one
  T weight = 0;       ///< what the divisor adds up
};

template <typename T>
struct SignElection {
  std::span<const ElectionTerm<T>> terms;
  std::span<const void* const> inputs;  ///< x_i, one per term
  const void* base = nullptr;
  bool normalize = true;
  T lambda = 1;
  std::uint32_t first_low = 0;          ///< low half of the first element's index; does not wrap within the run
};

/// `num` is a multiple of kPadElements. Inputs and base are decoded tiles of T.
void elect_and_combine(const SignElection<float>& election, std::size_t num, float* output);
void elect_and_combine(const SignElection<double>& election, std::size_t num, double* output);

/// Everything BF16.
void elect_and_combine_bf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output);

}  // namespace moeweld::merge
