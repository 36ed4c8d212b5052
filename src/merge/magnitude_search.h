#pragma once
/// A search for the k-th largest magnitude, as it lies in Decisions: what magnitude_selection.cpp (phases) and magnitude_guess.cpp (one
/// pass under a guess) share.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "merge/kernels/convert.h"
#include "merge/magnitude_selection.h"
#include "merge/nth_largest.h"

namespace moeweld::merge::magnitude {

using OrderKey = MagnitudeSelection::OrderKey;

constexpr OrderKey order_key(std::uint64_t magnitude, std::uint32_t hash, std::uint32_t high_index) {
  return OrderKey{magnitude} << 64 | std::uint64_t{hash} << 32 | high_index;
}
constexpr std::uint64_t magnitude_of(OrderKey key) { return static_cast<std::uint64_t>(key >> 64); }

/// Decisions about one input, as they lie in Decisions::integers.
struct Search {
  enum Stage : std::uint64_t {
    kAll,      ///< every element stays
    kNone,     ///< none does
    kFound,    ///< elements at or above `low` stay
    kSample,   ///< nothing is known yet of a large tensor
    kGuess,    ///< the key is likely in [low, high); `left` are to be kept in all
    kCertain,  ///< the key is in [low, high): the left-th largest there
  };
  std::uint64_t stage = kSample;
  OrderKey low = 0;
  OrderKey high = 0;
  std::uint64_t left = 0;
  std::uint64_t inside = 0;  ///< elements in [low, high): counted, or expected of a guess
};
constexpr std::size_t kSearchIntegers = 7;

inline Search load(const Decisions& decisions, std::size_t search) {
  const std::uint64_t* values = decisions.integers.data() + search * kSearchIntegers;
  return {values[0], OrderKey{values[1]} << 64 | values[2], OrderKey{values[3]} << 64 | values[4], values[5], values[6]};
}
inline void store(const Search& value, Decisions& decisions, std::size_t search) {
  const auto half = [](OrderKey key) { return static_cast<std::uint64_t>(key); };
  const std::uint64_t values[] = {
      value.stage, magnitude_of(value.low), half(value.low), magnitude_of(value.high), half(value.high), value.left, value.inside};
  std::copy(std::begin(values), std::end(values), decisions.integers.begin() + static_cast<std::ptrdiff_t>(search * kSearchIntegers));
}

/// Tensors from this size on are sampled first.
constexpr std::uint64_t kSampledElements = 1 << 18;
/// More keys for larger tensors: sampling and listing then cost about the same.
constexpr std::uint64_t kFewestSampleKeys = 1 << 15;
constexpr std::uint64_t kMostSampleKeys = 1 << 18;
constexpr std::uint64_t kElementsPerSampleKey = 64;
constexpr std::uint64_t kRunElements = MagnitudeSelection::kRunElements;
static_assert(kRunElements % kPadElements == 0);
/// Half the bracket's width in standard errors: two searches in a thousand look a second time.
constexpr double kBracketErrors = 3.3;

/// Beyond, the bracket says too little to be worth a guess.
constexpr std::uint64_t kMostExpectedDoubts = 3 << 19;
constexpr std::uint64_t kInfinityBits = 0x7F800000;

inline OrderKey end_of_keys(const Task& task) {
  return OrderKey{computes_in_float64(task.output_dtype) ? std::uint64_t{0x7FF8000000000001} : std::uint64_t{0x7FC00001}} << 64;
}

inline std::uint64_t sample_keys(const Task& task) {
  return std::clamp(task.elements() / kElementsPerSampleKey, kFewestSampleKeys, kMostSampleKeys);
}

/// Keys of tensors of at most 2^32 elements without the index's high half, of float32 arithmetic.
using CompactKey = std::uint64_t;
constexpr CompactKey compact_key(std::uint32_t magnitude, std::uint32_t hash) { return std::uint64_t{magnitude} << 32 | hash; }
constexpr OrderKey widen(CompactKey key) { return OrderKey{key} << 32; }
constexpr OrderKey widen(OrderKey key) { return key; }
constexpr CompactKey narrow(OrderKey key) { return static_cast<CompactKey>(key >> 32); }

/// Variance of the share of keys at or above `centre`, as the means of clusters of neighbours show it: of runs, or of chunks of whole runs,
/// whichever is larger.
template <typename Key>
double variance_of_share(std::span<const Key> keys, Key centre, std::size_t chunk) {
  struct Moments {
    double sum = 0;
    double squares = 0;
    std::size_t num = 0;
    void add(std::size_t above, std::size_t cluster) {
      const double share = static_cast<double>(above) / static_cast<double>(cluster);
      sum += share;
      squares += share * share;
      ++num;
    }
    double variance_of_mean() const {
      if (num < 2) return 0;
      const auto count = static_cast<double>(num);
      const double mean = sum / count;
      return std::max(squares / count - mean * mean, 0.0) / (count - 1);
    }
  };
  Moments runs;
  Moments chunks;
  for (std::size_t begin = 0; begin + chunk <= keys.size(); begin += chunk) {
    std::size_t in_chunk = 0;
    for (std::size_t run = begin; run < begin + chunk; run += kRunElements) {
      std::size_t above = 0;
      for (const Key key : keys.subspan(run, kRunElements)) above += key >= centre ? 1 : 0;
      runs.add(above, kRunElements);
      in_chunk += above;
    }
    chunks.add(in_chunk, chunk);
  }
  return std::max(runs.variance_of_mean(), chunks.variance_of_mean());
}

/// A bracket around the left-th largest key, from a sample in chunks of whole runs. Its width follows from how much chunks, and runs within
/// them, differ from one another: neighbours are alike in real models, so the sample is worth less than its size.
template <typename Key>
void guess_bracket(std::span<const Key> keys, std::size_t chunk, std::uint64_t elements, Key end, Search& search) {
  const auto size = static_cast<double>(keys.size());
  const double share = static_cast<double>(search.left) / static_cast<double>(elements);
  const RankedKeys<Key> ranked(keys);
  const auto largest = [&](double rank) {
    if (rank < 0) return end;
    if (rank >= size) return Key{0};
    return ranked.nth_largest(static_cast<std::size_t>(rank));
  };
  const Key centre = largest(std::min(share * size, size - 1));
  // At least what independent elements would have, and a few elements for densities at the edges.
  const double variance = std::max(share * (1 - share) / size, variance_of_share(keys, centre, chunk));
  const double half = kBracketErrors * std::sqrt(variance) * size + 8;
  const Key high = largest(share * size - half);
  const Key low = largest(share * size + half);
  search.low = widen(low);
  search.high = widen(std::max<Key>(high, low + 1));
  search.inside = std::min(elements, static_cast<std::uint64_t>(2 * half / size * static_cast<double>(elements)));
  search.stage = Search::kGuess;
}

/// Whether the k-th key is in the bracket; otherwise the search goes on beside it.
inline bool confirm(std::uint64_t above, std::uint64_t inside, std::uint64_t elements, OrderKey end, Search& search) {
  if (search.stage == Search::kCertain) return true;
  search.stage = Search::kCertain;
  if (above >= search.left) {
    search.low = search.high;
    search.high = end;
    search.inside = above;
    return false;
  }
  if (above + inside < search.left) {
    search.high = search.low;
    search.low = 0;
    search.left -= above + inside;
    search.inside = elements - above - inside;
    return false;
  }
  search.left -= above;
  search.inside = inside;
  return true;
}

}  // namespace moeweld::merge::magnitude
