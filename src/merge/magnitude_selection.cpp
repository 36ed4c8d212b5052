#include "merge/magnitude_selection.h"

#include <algorithm>
#include <cmath>

#include "merge/kernels/elect_signs.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

/// One search as it lies in Decisions::integers.
struct Search {
  enum Stage : std::uint64_t { kAll = 100, kNone = 101, kFound = 102 };  // else: number of the next digit
  std::uint64_t stage = 0;
  std::uint64_t magnitude = 0;  // digits found so far; the lower ones are 0
  std::uint64_t hash = 0;
  std::uint64_t high_index = 0;
  std::uint64_t left = 0;  // how many of the elements that match all digits so far are to be kept
  std::uint64_t hash_digits = 0;
};
constexpr std::size_t kSearchIntegers = 6;

Search load(const Decisions& decisions, std::size_t search) {
  const std::uint64_t* values = decisions.integers.data() + search * kSearchIntegers;
  return {values[0], values[1], values[2], values[3], values[4], values[5]};
}
void store(const Search& value, Decisions& decisions, std::size_t search) {
  const std::uint64_t values[] = {value.stage, value.magnitude, value.hash, value.high_index, value.left, value.hash_digits};
  std::copy(std::begin(values), std::end(values), decisions.integers.begin() + static_cast<std::ptrdiff_t>(search * kSearchIntegers));
}

std::uint64_t magnitude_digits(const Task& task) { return computes_in_float64(task.output_dtype) ? 4 : 2; }

std::uint32_t hash_key(const Task& task, int input) {
  return mix32(static_cast<std::uint32_t>(task.tensor_key) ^
               mix32(static_cast<std::uint32_t>(task.tensor_key >> 32) + static_cast<std::uint32_t>(input)));
}

/// Which keys the digit that a search is at is counted of: those equal to `known` after a shift.
struct Filter {
  int shift = 0;
  std::uint64_t known = 0;
};
Filter filter_of(const Search& search, std::uint64_t digits) {
  if (search.stage >= digits) return {0, search.magnitude};
  const int shift = static_cast<int>(16 * (digits - search.stage));
  return {shift, search.magnitude >> shift};
}

/// First digit: every key counts.
template <typename Key>
void count_first_digit(std::uint64_t digits, const Key* keys, std::size_t num, std::uint64_t* bins) {
  const int shift = static_cast<int>(16 * (digits - 1));
  for (std::size_t i = 0; i < num; ++i) ++bins[keys[i] >> shift];
}

/// Later digits of the magnitude, then of the hash, then the index's high half, for keys that passed the filter.
template <typename Key>
void count_later_digit(const Search& search, std::uint64_t digits, std::uint32_t key_salt, const Key* keys, const Key* places,
                       std::uint64_t first_index, std::size_t num, std::uint64_t* bins) {
  if (search.stage < digits) {
    const int shift = static_cast<int>(16 * (digits - 1 - search.stage));
    for (std::size_t i = 0; i < num; ++i) ++bins[(keys[i] >> shift) & 0xFFFF];
    return;
  }
  const std::uint32_t salt = hash_salt(key_salt, first_index);
  for (std::size_t i = 0; i < num; ++i) {
    const std::uint32_t hash = mix32(static_cast<std::uint32_t>(first_index + places[i]) ^ salt);
    if (search.stage == digits) {
      ++bins[hash >> 16];
    } else if (search.stage == digits + 1) {
      if ((hash >> 16) == (search.hash >> 16)) ++bins[hash & 0xFFFF];
    } else if (hash == search.hash) {
      ++bins[std::min<std::uint64_t>((first_index + places[i]) >> 32, MagnitudeSelection::kBins - 1)];
    }
  }
}

/// Arrays of one tile, on the stack of the thread that measures.
template <typename Key>
struct TileKeys {
  alignas(64) Key keys[kTileElements + kFindSlack];
  alignas(64) Key places[kTileElements + kFindSlack];
};

/// Drops what lies in the padding behind the tensor's end.
template <typename Key>
std::size_t without_padding(const Key* places, std::size_t found, std::size_t valid) {
  while (found != 0 && places[found - 1] >= valid) --found;
  return found;
}

}  // namespace

std::uint64_t MagnitudeSelection::count_to_keep(double density, std::uint64_t num_elements) {
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::floor(density * static_cast<double>(num_elements))));
}

void MagnitudeSelection::start(std::span<const double> densities, Decisions& decisions) const {
  decisions.integers.assign(inputs_.size() * kSearchIntegers, 0);
  const std::uint64_t elements = task_.elements();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Search search;
    if (densities[i] >= 1 || elements == 0) {
      search.stage = Search::kAll;
    } else if (!(densities[i] > 0)) {
      search.stage = Search::kNone;
    } else {
      search.left = count_to_keep(densities[i], elements);
      if (search.left >= elements) search.stage = Search::kAll;
    }
    store(search, decisions, i);
  }
}

std::vector<std::size_t> MagnitudeSelection::open_searches(const Decisions& decisions) const {
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (load(decisions, i).stage < Search::kAll) result.push_back(i);
  }
  return result;
}

void MagnitudeSelection::measure(const Decisions& decisions, const Elements& block, std::span<std::uint64_t> counts) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  const std::uint64_t digits = magnitude_digits(task_);
  const auto base = static_cast<std::size_t>(task_.base_index);
  const auto count_tile = [&](std::size_t i, auto& tile, std::uint64_t first, std::size_t valid, const auto& all_keys, const auto& find) {
    const Search search = load(decisions, open[i]);
    std::uint64_t* bins = counts.data() + i * kBins;
    if (search.stage == 0) {
      all_keys(tile.keys);
      count_first_digit(digits, tile.keys, valid, bins);
      return;
    }
    const Filter filter = filter_of(search, digits);
    const std::size_t found = without_padding(tile.places, find(filter, tile.keys, tile.places), valid);
    count_later_digit(search, digits, hash_key(task_, inputs_[open[i]]), tile.keys, tile.places, first, found, bins);
  };
  for_padded(task_, block, nullptr, 0, [&](const Elements& part, std::size_t valid, std::byte*) {
    // Padding must not be counted: `valid` elements are the tensor's.
    const auto in_tile = [&](std::size_t offset, std::size_t num) { return valid > offset ? std::min(num, valid - offset) : 0; };
    if (!computes_in_float64(task_.output_dtype) && all_inputs_are(task_, DType::kBF16)) {
      TileKeys<std::uint32_t> tile;
      const auto* base_data = reinterpret_cast<const std::uint16_t*>(part.inputs[base]);
      for (std::size_t offset = 0; offset < part.num_elements; offset += kTileElements) {
        const std::size_t num = std::min(kTileElements, part.num_elements - offset);
        for (std::size_t i = 0; i < open.size(); ++i) {
          const auto* term = reinterpret_cast<const std::uint16_t*>(part.inputs[static_cast<std::size_t>(inputs_[open[i]])]) + offset;
          count_tile(
              i, tile, part.first_element + offset, in_tile(offset, num),
              [&](std::uint32_t* keys) { magnitude_keys_bf16(term, base_data + offset, num, keys); },
              [&](const Filter& filter, std::uint32_t* keys, std::uint32_t* places) {
                return find_keys_bf16(term, base_data + offset, num, filter.shift, static_cast<std::uint32_t>(filter.known), keys, places);
              });
        }
      }
      return;
    }
    const auto decoded = [&]<typename T, typename Key>(T, Key) {
      TileKeys<Key> tile;
      for_decoded_tiles<T>(task_, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
        const auto* base_data = static_cast<const T*>(tiles[base]);
        for (std::size_t i = 0; i < open.size(); ++i) {
          const auto* term = static_cast<const T*>(tiles[static_cast<std::size_t>(inputs_[open[i]])]);
          count_tile(
              i, tile, part.first_element + offset, in_tile(offset, num), [&](Key* keys) { magnitude_keys(term, base_data, num, keys); },
              [&](const Filter& filter, Key* keys, Key* places) {
                return find_keys(term, base_data, num, filter.shift, static_cast<Key>(filter.known), keys, places);
              });
        }
      });
    };
    if (computes_in_float64(task_.output_dtype)) {
      decoded(double{}, std::uint64_t{});
    } else {
      decoded(float{}, std::uint32_t{});
    }
  });
}

void MagnitudeSelection::decide(std::span<const std::uint64_t> counts, Decisions& decisions) const {
  const std::uint64_t digits = magnitude_digits(task_);
  const std::vector<std::size_t> open = open_searches(decisions);
  for (std::size_t i = 0; i < open.size(); ++i) {
    Search search = load(decisions, open[i]);
    const std::uint64_t* bins = counts.data() + i * kBins;
    std::size_t bin = kBins - 1;
    while (bins[bin] < search.left) {
      search.left -= bins[bin];
      if (bin == 0) throw Error(ErrorCode::kInternal, "a histogram holds fewer elements than are to be kept");
      --bin;
    }
    if (search.stage < digits) {
      search.magnitude |= static_cast<std::uint64_t>(bin) << (16 * (digits - 1 - search.stage));
    } else if (search.stage < digits + 2) {
      search.hash |= static_cast<std::uint64_t>(bin) << (16 * (digits + 1 - search.stage));
      search.hash_digits = 1;
    } else {
      search.high_index = bin;
    }
    search.stage = bins[bin] == search.left ? static_cast<std::uint64_t>(Search::kFound) : search.stage + 1;
    store(search, decisions, open[i]);
  }
}

KeepRule MagnitudeSelection::rule(const Decisions& decisions, std::size_t search_index, std::uint64_t index) const {
  const Search search = load(decisions, search_index);
  KeepRule rule;
  if (search.stage == Search::kAll) return rule;
  if (search.stage == Search::kNone) {
    rule.kind = KeepRule::Kind::kNone;
    return rule;
  }
  rule.magnitude = search.magnitude;
  rule.kind = search.hash_digits != 0 ? KeepRule::Kind::kMagnitudeThenHash : KeepRule::Kind::kMagnitude;
  rule.hash = static_cast<std::uint32_t>(search.hash);
  rule.hash_inclusive = (index >> 32) >= search.high_index;
  rule.salt = hash_salt(hash_key(task_, inputs_[search_index]), index);
  return rule;
}

}  // namespace moeweld::merge
