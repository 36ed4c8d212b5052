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
  std::uint32_t index_salt = 0;        ///< of the elements
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

/// Elements about which a bracket of bounds does not say whether they stay. `places` has room for every element of the run and for
/// kDoubtSlack more.
constexpr std::size_t kMostTermsBetween = 4;
constexpr std::size_t kDoubtSlack = 64;
struct ElectionDoubts {
  std::size_t num = 0;                        ///< so many are there already
  std::uint32_t* places = nullptr;            ///< from the start of the run, in no order
  std::size_t above[kMostTermsBetween] = {};  ///< elements of each term at or above its rule's bound, added up
};

/// elect_signs_bf16 where each of at most kMostTermsBetween terms has two bounds, none above infinity: election.rules, at or above which an
/// element stays, and `lows`, below which it goes. Elements of which a term lies in between are computed as if it went, and listed. No
/// scales; `num` is below 2^31.
void elect_between_bf16(const SignElection<float>& election, std::span<const KeepRule> lows, std::size_t num, std::uint16_t* output,
                        ElectionDoubts& doubts);

/// target[i] = x_i − b_i where the rule keeps it, else 0, as float64.
void kept_deltas(const KeepRule& rule, std::uint32_t index_salt, const float* term, const float* base, std::size_t num,
                 std::uint32_t first_low, double* target);
void kept_deltas(const KeepRule& rule, std::uint32_t index_salt, const double* term, const double* base, std::size_t num,
                 std::uint32_t first_low, double* target);

}  // namespace moeweld::merge
