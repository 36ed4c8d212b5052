#pragma once
/// Sparsified task vectors, weighted, elected by sign, summed and added to the base. One pass.

#include <cstddef>
#include <cstdint>
#include <span>

#include "merge/kernels/keep_rule.h"

namespace moeweld::merge {

template <typename T>
struct SignElection {
  std::span<const T> weights;          ///< one per term
  std::span<const T> scales;           ///< factor on what the rule keeps; empty: none
  std::span<const KeepRule> rules;     ///< one per term
  std::span<const void* const> terms;  ///< x_i
  const void* base = nullptr;          ///< b
  std::uint32_t first_low = 0;         ///< low half of the first element's index; the run does not cross a multiple of 2^32
  bool normalize = true;
  T lambda = 1;
};

/// `num` is a multiple of kPadElements. The sign of Σ v_i (≥ 0 counts as +) decides; terms of the other sign and zeros take no part, NaN
/// always does.
void elect_signs(const SignElection<float>& election, std::size_t num, float* output);
void elect_signs(const SignElection<double>& election, std::size_t num, double* output);

/// terms and base are BF16, and so is the output. Same bytes as decoding, electing and encoding.
void elect_signs_bf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output);

/// keys[i] = bits of |x_i − b_i| in T, every NaN as the same largest key. `num` is a multiple of kPadElements.
void magnitude_keys(const float* term, const float* base, std::size_t num, std::uint32_t* keys);
void magnitude_keys(const double* term, const double* base, std::size_t num, std::uint64_t* keys);
void magnitude_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, std::uint32_t* keys);

/// Finds the elements whose key, shifted right by `shift`, equals `known`: their keys and their places, both ascending in place. Returns
/// how many. The arrays have room for num entries and one vector.
std::size_t find_keys(const float* term, const float* base, std::size_t num, int shift, std::uint32_t known, std::uint32_t* keys,
                      std::uint32_t* places);
std::size_t find_keys(const double* term, const double* base, std::size_t num, int shift, std::uint64_t known, std::uint64_t* keys,
                      std::uint64_t* places);
std::size_t find_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, int shift, std::uint32_t known,
                           std::uint32_t* keys, std::uint32_t* places);
/// Room beyond num that find_keys needs: the longest vector.
constexpr std::size_t kFindSlack = 64;

/// target[i] = x_i − b_i where the rule keeps it, else 0, as float64.
void kept_deltas(const KeepRule& rule, const float* term, const float* base, std::size_t num, std::uint32_t first_low, double* target);
void kept_deltas(const KeepRule& rule, const double* term, const double* base, std::size_t num, std::uint32_t first_low, double* target);

}  // namespace moeweld::merge
