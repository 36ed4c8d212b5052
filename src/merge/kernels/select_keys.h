#pragma once
/// Magnitudes of task vectors as integer keys, and the elements whose keys lie between two bounds.

#include <cstddef>
#include <cstdint>

namespace moeweld::merge {

/// An element is at or above it when its magnitude is larger, or equal and its hash not smaller.
template <typename Key>
struct KeyBound {
  Key magnitude = 0;
  std::uint32_t hash = 0;
};

/// Elements at or above `low` and below `high`; low is not above high. They share the high half of their indices.
template <typename Key>
struct KeyBracket {
  KeyBound<Key> low;
  KeyBound<Key> high;
  std::uint32_t index_salt = 0;
  std::uint32_t input_factor = 1;
  std::uint32_t first_low = 0;  ///< low half of the first element's index
};

/// How many elements are at or above the bracket, and how many lie in it.
struct KeyCounts {
  std::size_t above = 0;
  std::size_t inside = 0;
};

/// keys[i] = bits of |x_i − b_i| in T, every NaN as the same largest key. `num` is a multiple of kPadElements.
void magnitude_keys(const float* term, const float* base, std::size_t num, std::uint32_t* keys);
void magnitude_keys(const double* term, const double* base, std::size_t num, std::uint64_t* keys);
void magnitude_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, std::uint32_t* keys);

/// keys[i] = bits of |x_i − b_i| << 32 | hash_index(index_salt, input_factor, elements[i]), NaN by its bits. Any `num`.
void order_keys(const float* term, const float* base, const std::uint64_t* elements, std::size_t num, std::uint32_t index_salt,
                std::uint32_t input_factor, std::uint64_t* keys);

/// Keys of the elements inside the bracket and their places in the run, ascending. The arrays have room for num entries and kSelectSlack.
KeyCounts select_keys(const float* term, const float* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket, std::uint32_t* keys,
                      std::uint32_t* places);
KeyCounts select_keys(const double* term, const double* base, std::size_t num, const KeyBracket<std::uint64_t>& bracket,
                      std::uint64_t* keys, std::uint64_t* places);
KeyCounts select_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket,
                           std::uint32_t* keys, std::uint32_t* places);
/// The longest vector.
constexpr std::size_t kSelectSlack = 64;

}  // namespace moeweld::merge
