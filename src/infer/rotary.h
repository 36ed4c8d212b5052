#pragma once
/// Rotary position embedding: frequencies of every kind that configs carry, and their application to heads.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/model/transformer.h"

namespace moeweld::infer {

/// One frequency for each pair of elements, rotary_dim / 2 of them, by transformers' modeling_rope_utils, rounded to float32 as there.
/// `length` is that of the sequence: dynamic NTK scaling depends on it beyond max_positions.
std::vector<float> rotary_frequencies(const model::RopeSpec& rope, std::uint64_t length);

/// cos and sin for positions 0..length, multiplied by the attention factor.
class RotaryTable {
 public:
  RotaryTable(const model::RopeSpec& rope, std::uint64_t length);
  std::uint64_t length() const { return length_; }
  /// Rotates one head in place: the first rotary_dim elements, element i with element i + rotary_dim / 2.
  void rotate(std::uint64_t position, float* head) const;

 private:
  std::uint64_t length_;
  std::size_t half_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

}  // namespace moeweld::infer
