#pragma once
/// Selection in a list of integer keys.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace moeweld::merge {

/// The key that stands at place `n` (from 0) when `keys` descend. Reorders them. Counts them in equal parts of their range first: keys of
/// one tensor are dense, and a selection by comparisons costs several times as much.
template <typename Key>
Key nth_largest(std::span<Key> keys, std::size_t n) {
  constexpr std::size_t kParts = 2048;
  while (keys.size() > 4 * kParts) {
    const auto [least, most] = std::minmax_element(keys.begin(), keys.end());
    const Key low = *least;
    const Key range = *most - low;
    int shift = 0;
    while ((range >> shift) >= kParts) ++shift;
    std::vector<std::uint32_t> counts(kParts, 0);
    for (const Key key : keys) ++counts[static_cast<std::size_t>((key - low) >> shift)];
    std::size_t part = kParts - 1;
    while (counts[part] <= n) n -= counts[part--];
    // A swap with the front where the key is in the part, without a branch that could be mispredicted.
    std::size_t size = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Key key = keys[i];
      keys[i] = keys[size];
      keys[size] = key;
      size += static_cast<std::size_t>((key - low) >> shift) == part ? 1 : 0;
    }
    // Equal keys, or all in one part: nothing is gained by counting again.
    if (shift == 0 || size == keys.size()) break;
    keys = keys.first(size);
  }
  const auto place = keys.begin() + static_cast<std::ptrdiff_t>(n);
  std::nth_element(keys.begin(), place, keys.end(), std::greater<Key>());
  return *place;
}

}  // namespace moeweld::merge
