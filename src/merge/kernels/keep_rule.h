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

/// Hash of element `index`, distinct for all indices with the same high half. `key`: the tensor's and the input's.
constexpr std::uint32_t hash_salt(std::uint32_t key, std::uint64_t index) { return mix32(static_cast<std::uint32_t>(index >> 32) ^ key); }
constexpr std::uint32_t hash_index(std::uint32_t key, std::uint64_t index) {
  return mix32(static_cast<std::uint32_t>(index) ^ hash_salt(key, index));
}

/// For elements whose indices share their high half.
struct KeepRule {
  enum class Kind : std::uint8_t { kAll, kNone, kMagnitude, kMagnitudeThenHash };
  Kind kind = Kind::kAll;
  bool hash_inclusive = true;  ///< whether an element of equal magnitude and equal hash stays
  std::uint32_t hash = 0;
  std::uint32_t salt = 0;       ///< hash_salt of these elements
  std::uint64_t magnitude = 0;  ///< bits of the smallest magnitude that may stay; NaN counts as the largest
};

}  // namespace moeweld::merge
