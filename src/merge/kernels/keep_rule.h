#pragma once
/// Which elements of a task vector stay: those whose key (magnitude bits, hash of the index, high half of the index) is not below a bound.

#include <cstddef>
#include <cstdint>

namespace moeweld::merge {

/// Bijective on 32 bits.
constexpr std::uint32_t mix32(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return x;
}

/// Hash of element `index` in the order of one input: distinct for all indices with the same high half. The costly part, mix32, is the same
/// for all inputs; an odd factor of each input's own makes their orders unlike.
constexpr std::uint32_t index_salt(std::uint64_t tensor_key, std::uint64_t index) {
  return mix32(static_cast<std::uint32_t>(index >> 32) ^
               mix32(static_cast<std::uint32_t>(tensor_key) + static_cast<std::uint32_t>(tensor_key >> 32)));
}
constexpr std::uint32_t input_factor(std::uint64_t tensor_key, int input) {
  return mix32(static_cast<std::uint32_t>(tensor_key >> 32) + mix32(static_cast<std::uint32_t>(input) + 1)) | 1;
}
/// The top bit is flipped, so that kernels may compare hashes without it as signed numbers.
constexpr std::uint32_t kHashFlip = 0x80000000u;
constexpr std::uint32_t hash_index(std::uint32_t index_salt, std::uint32_t input_factor, std::uint64_t index) {
  return (mix32(static_cast<std::uint32_t>(index) ^ index_salt) * input_factor) ^ kHashFlip;
}

/// Elements of one input at or above a bound stay. They share the high half of their indices. By default all do.
struct KeepRule {
  std::uint64_t magnitude = 0;  ///< bits of the smallest magnitude that may stay; NaN counts as the largest
  std::uint32_t hash = 0;       ///< smallest hash that stays among elements of that magnitude
  std::uint32_t factor = 1;     ///< input_factor

  bool keeps_all() const { return magnitude == 0 && hash == 0; }
};

}  // namespace moeweld::merge
