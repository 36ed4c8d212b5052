#include "merge/magnitude_selection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "merge/kernels/select_keys.h"
#include "merge/magnitude_search.h"
#include "merge/nth_largest.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

using namespace magnitude;  // NOLINT(google-build-using-namespace): its internals

constexpr std::size_t kBins = 1 << 16;
constexpr std::size_t kBytesPerListedKey = 2 * sizeof(double);
enum class Mode { kSample, kCollect, kHistogram };

Mode mode_of(const Search& search, std::uint64_t elements, std::size_t num_inputs) {
  if (search.stage == Search::kSample) return Mode::kSample;
  const std::uint64_t most = MagnitudeSelection::kListedKeysBytes / kBytesPerListedKey / num_inputs;
  const bool few = elements <= kBins || search.inside <= elements / 8;
  return few && search.inside <= most ? Mode::kCollect : Mode::kHistogram;
}

/// Width of one of kBins equal parts of the bracket, as a shift.
int bin_shift(const Search& search) {
  const OrderKey last = search.high - search.low - 1;
  const auto top = static_cast<std::uint64_t>(last >> 64);
  const auto bits = static_cast<int>(top != 0 ? 64 + std::bit_width(top) : std::bit_width(static_cast<std::uint64_t>(last)));
  return std::max(0, bits - 16);
}

/// The bound among elements whose indices have this high half.
template <typename Key>
KeyBound<Key> bound_at(OrderKey key, std::uint64_t high_index) {
  const auto magnitude = static_cast<Key>(magnitude_of(key));
  const auto hash = static_cast<std::uint32_t>(key >> 32);
  if (high_index >= static_cast<std::uint32_t>(key)) return {magnitude, hash};
  if (hash != std::numeric_limits<std::uint32_t>::max()) return {magnitude, hash + 1};
  return {static_cast<Key>(magnitude + 1), 0};
}

/// A key in a list: |δ| and the order among equals, both exact in float64.
template <typename T, typename Key>
void list_key(Key magnitude, std::uint32_t hash, std::uint64_t high_index, std::vector<double>& list) {
  list.push_back(static_cast<double>(std::bit_cast<T>(magnitude)));
  list.push_back(static_cast<double>(std::uint64_t{hash} << 16 | high_index));
}
OrderKey listed_key(const Task& task, double magnitude, double order) {
  const auto tie = static_cast<std::uint64_t>(order);
  std::uint64_t bits = 0;
  if (computes_in_float64(task.output_dtype)) {
    bits = std::isnan(magnitude) ? 0x7FF8000000000000 : std::bit_cast<std::uint64_t>(magnitude);
  } else {
    bits = std::isnan(magnitude) ? 0x7FC00000 : std::bit_cast<std::uint32_t>(static_cast<float>(magnitude));
  }
  return order_key(bits, static_cast<std::uint32_t>(tie >> 16), static_cast<std::uint32_t>(tie & 0xFFFF));
}

/// A tile of all inputs, seen by kernels in the arithmetic type T.
template <typename Value, typename KeyType, typename Stored>
struct Tile {
  using T = Value;
  using Key = KeyType;
  std::span<const Stored* const> inputs;
  std::size_t base = 0;
  std::uint64_t first = 0;
  std::size_t num = 0;

  void all_keys(std::size_t input, Key* keys) const {
    if constexpr (sizeof(Stored) == 2) {
      magnitude_keys_bf16(inputs[input], inputs[base], num, keys);
    } else {
      magnitude_keys(inputs[input], inputs[base], num, keys);
    }
  }
  KeyCounts select(std::size_t input, const KeyBracket<Key>& bracket, Key* keys, Key* places) const {
    if constexpr (sizeof(Stored) == 2) {
      return select_keys_bf16(inputs[input], inputs[base], num, bracket, keys, places);
    } else {
      return select_keys(inputs[input], inputs[base], num, bracket, keys, places);
    }
  }
};

/// Calls work(tile) for tiles of `part`, whose length is a multiple of kPadElements.
template <class Work>
void for_tiles(const Task& task, const Elements& part, Work&& work) {
  const auto base = static_cast<std::size_t>(task.base_index);
  if (!computes_in_float64(task.output_dtype) && all_inputs_are(task, DType::kBF16)) {
    std::vector<const std::uint16_t*> inputs(part.inputs.size());
    for (std::size_t offset = 0; offset < part.num_elements; offset += kTileElements) {
      for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = reinterpret_cast<const std::uint16_t*>(part.inputs[i]) + offset;
      work(Tile<float, std::uint32_t, std::uint16_t>{inputs, base, part.first_element + offset,
                                                     std::min(kTileElements, part.num_elements - offset)});
    }
    return;
  }
  const auto decoded = [&]<typename T, typename Key>(T, Key) {
    std::vector<const T*> inputs(part.inputs.size());
    for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = static_cast<const T*>(tiles[i]);
      work(Tile<T, Key, T>{inputs, base, part.first_element + offset, num});
    });
  };
  if (computes_in_float64(task.output_dtype)) {
    decoded(double{}, std::uint64_t{});
  } else {
    decoded(float{}, std::uint32_t{});
  }
}

/// Arrays of one tile, on the stack of the thread that measures.
template <typename Key>
struct TileKeys {
  alignas(64) std::array<Key, kTileElements + kSelectSlack> keys;
  alignas(64) std::array<Key, kTileElements + kSelectSlack> places;
};

/// One search's view of a block: what its phase adds.
class Counter {
 public:
  Counter(const Task& task, int input, const Search& search, std::size_t num_inputs, std::uint64_t high_index, std::uint64_t* counts)
      : search_(search),
        input_(static_cast<std::size_t>(input)),
        mode_(mode_of(search, task.elements(), num_inputs)),
        high_index_(high_index),
        index_salt_(index_salt(task.tensor_key, high_index << 32)),
        input_factor_(input_factor(task.tensor_key, input)),
        is_whole_(search.low == 0 && search.high == end_of_keys(task)),
        counts_(counts) {
    if (mode_ == Mode::kHistogram) shift_ = bin_shift(search);
  }

  Mode mode() const { return mode_; }
  std::vector<double>& list() { return list_; }

  /// `valid`: elements that are the tensor's; padding follows.
  template <class Tile>
  void add(const Tile& tile, std::size_t valid) {
    using Key = typename Tile::Key;
    TileKeys<Key> found;
    if (mode_ == Mode::kSample || is_whole_ || valid < tile.num) {
      tile.all_keys(input_, found.keys.data());
      for (std::size_t i = 0; i < valid; ++i) add_any(tile, found.keys[i], i);
      return;
    }
    const KeyBracket<Key> bracket{bound_at<Key>(search_.low, high_index_), bound_at<Key>(search_.high, high_index_), index_salt_,
                                  input_factor_, static_cast<std::uint32_t>(tile.first)};
    const KeyCounts counts = tile.select(input_, bracket, found.keys.data(), found.places.data());
    counts_[0] += counts.above;
    counts_[1] += counts.inside;
    for (std::size_t i = 0; i < counts.inside; ++i) add_inside(tile, found.keys[i], static_cast<std::size_t>(found.places[i]));
  }

 private:
  std::uint32_t hash_at(std::uint64_t index) const { return hash_index(index_salt_, input_factor_, index); }

  template <class Tile>
  void add_any(const Tile& tile, typename Tile::Key magnitude, std::size_t place) {
    if (mode_ == Mode::kSample) return list_key<typename Tile::T>(magnitude, hash_at(tile.first + place), high_index_, list_);
    if (!is_whole_) {
      const OrderKey key = order_key(magnitude, hash_at(tile.first + place), static_cast<std::uint32_t>(high_index_));
      if (key >= search_.high) ++counts_[0];
      if (key >= search_.high || key < search_.low) return;
    }
    ++counts_[1];
    add_inside(tile, magnitude, place);
  }

  template <class Tile>
  void add_inside(const Tile& tile, typename Tile::Key magnitude, std::size_t place) {
    if (mode_ == Mode::kCollect) return list_key<typename Tile::T>(magnitude, hash_at(tile.first + place), high_index_, list_);
    // The first histogram of a whole tensor needs no hashes: its parts are at least as wide as a magnitude.
    const std::uint64_t bin =
        is_whole_ && shift_ >= 64
            ? std::uint64_t{magnitude} >> (shift_ - 64)
            : static_cast<std::uint64_t>(
                  (order_key(magnitude, hash_at(tile.first + place), static_cast<std::uint32_t>(high_index_)) - search_.low) >> shift_);
    ++counts_[2 + bin];
  }

  const Search search_;
  const std::size_t input_;
  const Mode mode_;
  const std::uint64_t high_index_;
  const std::uint32_t index_salt_;
  const std::uint32_t input_factor_;
  const bool is_whole_;
  std::uint64_t* const counts_;  // above, inside, then the histogram
  int shift_ = 0;
  std::vector<double> list_;
};

std::size_t num_counts(Mode mode) { return mode == Mode::kSample ? 0 : mode == Mode::kCollect ? 2 : 2 + kBins; }

/// The runs of a block that belong to the sample: evenly spread, shaken by a hash so that no period of the rows is hit.
template <class Work>
void for_sampled_runs(const Task& task, const Elements& block, Work&& work) {
  const std::uint64_t runs_in_block = block.num_elements / kRunElements;
  const std::uint64_t keys = sample_keys(task);
  const std::uint64_t wanted = (keys / kRunElements + num_blocks(task.elements()) - 1) / num_blocks(task.elements());
  const std::uint64_t runs = std::min(runs_in_block, wanted);
  if (runs == 0) return;
  const std::uint64_t stride = runs_in_block / runs;
  for (std::uint64_t run = 0; run < runs; ++run) {
    const std::uint64_t shake = mix32(static_cast<std::uint32_t>(block.first_element / kRunElements + run)) % stride;
    const std::uint64_t offset = (run * stride + shake) * kRunElements;
    std::vector<const std::byte*> inputs(block.inputs.begin(), block.inputs.end());
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += offset * size_bytes(task.inputs[i].dtype);
    work(Elements{.first_element = block.first_element + offset, .num_elements = kRunElements, .inputs = inputs});
  }
}

void narrow_to_bin(std::span<const std::uint64_t> bins, Search& search) {
  const int shift = bin_shift(search);
  std::size_t bin = kBins - 1;
  while (bins[bin] < search.left) {
    search.left -= bins[bin];
    if (bin == 0) throw Error(ErrorCode::kInternal, "a histogram holds fewer elements than are to be kept");
    --bin;
  }
  search.high = std::min(search.high, search.low + (OrderKey{bin + 1} << shift));
  search.low += OrderKey{bin} << shift;
  search.inside = bins[bin];
  if (search.inside == search.left) search.stage = Search::kFound;
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
      search.high = end_of_keys(task_);
      search.inside = elements;
      search.stage = search.left >= elements ? Search::kAll : elements >= kSampledElements ? Search::kSample : Search::kCertain;
    }
    store(search, decisions, i);
  }
}

std::vector<std::size_t> MagnitudeSelection::open_searches(const Decisions& decisions) const {
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (load(decisions, i).stage >= Search::kSample) result.push_back(i);
  }
  return result;
}

std::uint64_t MagnitudeSelection::scratch_bytes(int threads) const {
  const std::uint64_t listed = std::min(kListedKeysBytes, task_.elements() * kBytesPerListedKey * inputs_.size());
  // Blocks' lists with room to grow, the list of all, the keys made of it.
  return 4 * listed + inputs_.size() * num_counts(Mode::kHistogram) * sizeof(std::uint64_t) * static_cast<std::uint64_t>(threads + 4);
}

std::optional<PhaseShape> MagnitudeSelection::next_phase(const Decisions& decisions) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  if (open.empty()) return std::nullopt;
  PhaseShape shape;
  for (const std::size_t search : open) {
    const Mode mode = mode_of(load(decisions, search), task_.elements(), inputs_.size());
    shape.num_counts += num_counts(mode);
    shape.has_sums = shape.has_sums || mode != Mode::kHistogram;
  }
  return shape;
}

void MagnitudeSelection::measure(const Decisions& decisions, const Elements& block, std::span<std::uint64_t> counts,
                                 std::vector<double>& sums) const {
  std::vector<Counter> samplers;
  std::vector<Counter> scanners;
  std::vector<std::pair<bool, std::size_t>> order;  // sampler or scanner, and which
  std::size_t used = 0;
  for (const std::size_t search : open_searches(decisions)) {
    const Counter counter(task_, inputs_[search], load(decisions, search), inputs_.size(), block.first_element >> 32, counts.data() + used);
    used += num_counts(counter.mode());
    auto& list = counter.mode() == Mode::kSample ? samplers : scanners;
    order.emplace_back(counter.mode() == Mode::kSample, list.size());
    list.push_back(counter);
  }
  if (!samplers.empty()) {
    for_sampled_runs(task_, block, [&](const Elements& run) {
      for_tiles(task_, run, [&](const auto& tile) {
        for (Counter& counter : samplers) counter.add(tile, tile.num);
      });
    });
  }
  if (!scanners.empty()) {
    for_padded(task_, block, nullptr, 0, [&](const Elements& part, std::size_t valid, std::byte*) {
      for_tiles(task_, part, [&](const auto& tile) {
        const std::size_t offset = tile.first - part.first_element;
        for (Counter& counter : scanners) counter.add(tile, valid > offset ? std::min(tile.num, valid - offset) : 0);
      });
    });
  }
  for (const auto& [is_sampler, index] : order) {
    Counter& counter = is_sampler ? samplers[index] : scanners[index];
    if (counter.mode() == Mode::kHistogram) continue;
    const std::size_t num_entries = counter.list().size() / 2;
    sums.push_back(static_cast<double>(num_entries));
    sums.insert(sums.end(), counter.list().begin(), counter.list().end());
  }
}

void MagnitudeSelection::decide(const PhaseResult& result, Decisions& decisions) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  const std::uint64_t elements = task_.elements();
  std::vector<Search> searches;
  std::vector<Mode> modes;
  for (const std::size_t search : open) {
    searches.push_back(load(decisions, search));
    modes.push_back(mode_of(searches.back(), elements, inputs_.size()));
  }
  std::vector<std::vector<OrderKey>> keys(open.size());
  for (std::size_t at = 0; at < result.sums.size();) {
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (modes[i] == Mode::kHistogram) continue;
      const auto num_keys = static_cast<std::size_t>(result.sums[at++]);
      for (std::size_t k = 0; k < num_keys; ++k, at += 2) keys[i].push_back(listed_key(task_, result.sums[at], result.sums[at + 1]));
    }
  }
  std::span<const std::uint64_t> counts = result.counts;
  for (std::size_t i = 0; i < open.size(); ++i) {
    Search& search = searches[i];
    const OrderKey end = end_of_keys(task_);
    const std::span<const std::uint64_t> own = counts.first(num_counts(modes[i]));
    counts = counts.subspan(own.size());
    if (modes[i] == Mode::kSample) {
      guess_bracket(std::span<const OrderKey>(keys[i]), kRunElements, elements, end, search);
    } else if (confirm(own[0], own[1], elements, end, search)) {
      if (modes[i] == Mode::kCollect) {
        if (search.left == 0 || search.left > keys[i].size())
          throw Error(ErrorCode::kInternal, "a bracket of magnitudes holds fewer elements than are to be kept");
        search.low = nth_largest(std::move(keys[i]), search.left - 1);
        search.stage = Search::kFound;
      } else {
        narrow_to_bin(own.subspan(2), search);
      }
    }
    store(search, decisions, open[i]);
  }
}

KeepRule MagnitudeSelection::rule_at(OrderKey key, std::size_t search, std::uint64_t index) const {
  const auto bound = bound_at<std::uint64_t>(key, index >> 32);
  return {.magnitude = bound.magnitude, .hash = bound.hash, .factor = input_factor(task_.tensor_key, inputs_[search])};
}

KeepRule MagnitudeSelection::rule(const Decisions& decisions, std::size_t search_index, std::uint64_t index) const {
  const Search search = load(decisions, search_index);
  if (search.stage == Search::kAll) return {};
  return rule_at(search.stage == Search::kNone ? end_of_keys(task_) : search.low, search_index, index);
}

KeepRule MagnitudeSelection::rule_above(const Decisions& decisions, std::size_t search_index, std::uint64_t index) const {
  const Search search = load(decisions, search_index);
  return search.stage == Search::kGuess ? rule_at(search.high, search_index, index) : rule(decisions, search_index, index);
}

}  // namespace moeweld::merge
