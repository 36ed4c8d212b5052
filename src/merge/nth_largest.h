#pragma once
/// Selection in a list of integer keys.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace moeweld::merge {

/// Keys counted in equal parts of their range: keys of one tensor are dense, and a selection by comparisons costs several times as much.
template <typename Key>
class KeyParts {
 public:
  static constexpr std::size_t kParts = 2048;

  /// Of keys from `low` to `low + last`.
  KeyParts(Key low, Key last) : low_(low), counts_(kParts + kPlacesBeside, 0) {
    while ((last >> shift_) >= kParts) ++shift_;
  }

  void count(Key key) { ++counts_[part_of(key)]; }
  /// Counts it if `is_wanted`, without a branch. `turn` differs from call to call: what is not wanted goes to counters beside in turn, as
  /// one alone would have to be written before it is read again.
  void count_if(bool is_wanted, Key key, std::size_t turn) {
    const std::size_t mask = std::size_t{0} - (is_wanted ? 1 : 0);
    ++counts_[(part_of(key) & mask) | ((kParts + turn % kPlacesBeside) & ~mask)];
  }
  void add(const KeyParts& other) {
    for (std::size_t part = 0; part < kParts; ++part) counts_[part] += other.counts_[part];
  }

  struct Place {
    std::size_t part = 0;
    std::size_t place = 0;  ///< among the keys of the part
    std::size_t size = 0;   ///< of the part
  };
  /// Where the key is that stands at place `n` (from 0) when the counted keys descend; there are more than n.
  Place find(std::size_t n) const {
    std::size_t part = kParts - 1;
    while (counts_[part] <= n) n -= counts_[part--];
    return {part, n, counts_[part]};
  }

  /// Appends what of `keys` is in the part to `found`; as many as were counted at most.
  void collect(std::span<const Key> keys, std::size_t part, std::vector<Key>& found) const {
    collect(keys, part, found, [](Key) { return true; });
  }
  /// The same of keys that `in_range` admits.
  void collect(std::span<const Key> keys, std::size_t part, std::vector<Key>& found, auto&& in_range) const {
    std::size_t size = found.size();
    found.resize(size + counts_[part] + 1);
    for (const Key key : keys) {
      found[size] = key;  // without a branch that could be mispredicted
      size += static_cast<std::size_t>(in_range(key)) & static_cast<std::size_t>(part_of(key) == part);
    }
    found.resize(size);
  }

 private:
  std::size_t part_of(Key key) const { return static_cast<std::size_t>((key - low_) >> shift_); }

  static constexpr std::size_t kPlacesBeside = 16;

  Key low_;
  int shift_ = 0;
  std::vector<std::uint32_t> counts_;  // of the parts, then those that are not wanted
};

/// Counts of all keys, at least one.
template <typename Key>
KeyParts<Key> count_parts(std::span<const Key> keys) {
  Key least = keys.front();
  Key most = keys.front();
  for (const Key key : keys) {
    least = std::min(least, key);
    most = std::max(most, key);
  }
  KeyParts<Key> parts(least, most - least);
  for (const Key key : keys) parts.count(key);
  return parts;
}

/// The key that stands at place `n` (from 0) when `keys` descend.
template <typename Key>
Key nth_largest(std::vector<Key> keys, std::size_t n) {
  while (keys.size() > 4 * KeyParts<Key>::kParts) {
    const KeyParts<Key> parts = count_parts(std::span<const Key>(keys));
    const auto place = parts.find(n);
    std::vector<Key> found;
    parts.collect(keys, place.part, found);
    n = place.place;
    // Equal keys: nothing is gained by counting again.
    const bool is_all = found.size() == keys.size();
    keys = std::move(found);
    if (is_all) break;
  }
  const auto place = keys.begin() + static_cast<std::ptrdiff_t>(n);
  std::nth_element(keys.begin(), place, keys.end(), std::greater<Key>());
  return *place;
}

/// Answers several questions about the same keys.
template <typename Key>
class RankedKeys {
 public:
  /// Keeps `keys`, at least one.
  explicit RankedKeys(std::span<const Key> keys) : keys_(keys), parts_(count_parts(keys)) {}

  Key nth_largest(std::size_t n) const {
    const auto place = parts_.find(n);
    std::vector<Key> found;
    parts_.collect(keys_, place.part, found);
    return merge::nth_largest(std::move(found), place.place);
  }

 private:
  std::span<const Key> keys_;
  KeyParts<Key> parts_;
};

}  // namespace moeweld::merge
