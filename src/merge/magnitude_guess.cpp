#include <omp.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "merge/kernels/select_keys.h"
#include "merge/magnitude_search.h"
#include "merge/magnitude_selection.h"
#include "merge/nth_largest.h"
#include "moeweld/base/thread_team.h"

namespace moeweld::merge {

namespace {

using namespace magnitude;  // NOLINT(google-build-using-namespace): its internals

constexpr std::uint64_t kMostElements = std::uint64_t{1} << 32;

}  // namespace

std::uint64_t MagnitudeSelection::sample_elements() const {
  const std::uint64_t elements = task_.elements();
  return elements < kSampledElements || elements > kMostElements ? 0 : sample_keys(task_);
}

bool MagnitudeSelection::guess(std::span<const Elements> sample, Decisions& decisions) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  const std::uint32_t salt = index_salt(task_.tensor_key, 0);
  const std::size_t chunk_elements = sample.front().num_elements;
  std::vector<Search> searches;
  for (const std::size_t index : open) searches.push_back(load(decisions, index));
  for_each_index(omp_get_max_threads(), open.size(), [&](std::size_t s, std::size_t) {
    const auto input = static_cast<std::size_t>(inputs_[open[s]]);
    const std::uint32_t factor = input_factor(task_.tensor_key, inputs_[open[s]]);
    std::vector<std::uint32_t> magnitudes(chunk_elements);
    const std::size_t num_keys = sample.size() * chunk_elements;
    const auto keys = std::make_unique_for_overwrite<CompactKey[]>(num_keys);
    CompactKey* key = keys.get();
    for (const Elements& chunk : sample) {
      magnitude_keys_bf16(reinterpret_cast<const std::uint16_t*>(chunk.inputs[input]),
                          reinterpret_cast<const std::uint16_t*>(chunk.inputs[static_cast<std::size_t>(task_.base_index)]), chunk_elements,
                          magnitudes.data());
      for (std::size_t i = 0; i < chunk_elements; ++i)
        *key++ = compact_key(magnitudes[i], hash_index(salt, factor, chunk.first_element + i));
    }
    guess_bracket(std::span<const CompactKey>(keys.get(), num_keys), chunk_elements, task_.elements(), narrow(end_of_keys(task_)),
                  searches[s]);
  });
  bool is_usable = true;
  std::uint64_t expected_doubts = 0;
  for (std::size_t s = 0; s < open.size(); ++s) {
    const Search& search = searches[s];
    is_usable = is_usable && magnitude_of(search.high) > 0 && magnitude_of(search.high) <= kInfinityBits;
    expected_doubts += search.inside;
    store(search, decisions, open[s]);
  }
  return is_usable && expected_doubts <= kMostExpectedDoubts;
}

bool MagnitudeSelection::settle(std::span<Doubts> parts, Decisions& decisions) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  const std::uint32_t salt = index_salt(task_.tensor_key, 0);
  std::vector<Search> searches;
  for (const std::size_t index : open) searches.push_back(load(decisions, index));
  const auto low_of = [&](std::size_t s) { return narrow(searches[s].low); };
  const auto width_of = [&](std::size_t s) { return narrow(searches[s].high) - low_of(s); };
  /// Of one search in one part.
  struct Counted {
    std::uint64_t above = 0;
    std::uint64_t inside = 0;
    std::optional<KeyParts<CompactKey>> keys;
  };
  std::vector<Counted> counted(open.size() * parts.size());
  for (Doubts& part : parts) part.keys.resize(inputs_.size());
  for_each_index(omp_get_max_threads(), counted.size(), [&](std::size_t index, std::size_t) {
    const std::size_t s = index % open.size();
    Doubts& part = parts[index / open.size()];
    if (part.counts.empty()) return;
    const std::uint32_t factor = input_factor(task_.tensor_key, inputs_[open[s]]);
    const CompactKey low = low_of(s);
    const CompactKey width = width_of(s);
    const float* values = part.inputs[static_cast<std::size_t>(inputs_[open[s]])].data();
    const float* base = part.inputs[static_cast<std::size_t>(task_.base_index)].data();
    std::vector<CompactKey>& keys = part.keys[open[s]];
    keys.resize(part.elements.size());
    order_keys(values, base, part.elements.data(), keys.size(), salt, factor, keys.data());
    // Without a branch: half of the doubts are the other term's.
    KeyParts<CompactKey> inside(low, width - 1);
    std::uint64_t num_inside = 0;
    for (std::size_t k = 0; k < keys.size(); ++k) {
      const bool is_inside = keys[k] - low < width;
      num_inside += is_inside ? 1 : 0;
      inside.count_if(is_inside, keys[k], k);
    }
    counted[index] = {part.counts[open[s]], num_inside, std::move(inside)};
  });
  std::vector<char> confirmed(open.size(), 0);
  for_each_index(omp_get_max_threads(), open.size(), [&](std::size_t s, std::size_t) {
    Search& search = searches[s];
    const CompactKey low = low_of(s);
    const CompactKey width = width_of(s);
    std::uint64_t above = 0;
    std::uint64_t num_inside = 0;
    KeyParts<CompactKey> inside(low, width - 1);
    for (std::size_t index = s; index < counted.size(); index += open.size()) {
      if (!counted[index].keys) continue;
      above += counted[index].above;
      num_inside += counted[index].inside;
      inside.add(*counted[index].keys);
    }
    if (!confirm(above, num_inside, task_.elements(), end_of_keys(task_), search)) return;
    const auto place = inside.find(search.left - 1);
    std::vector<CompactKey> found;
    for (const Doubts& part : parts) {
      if (part.counts.empty()) continue;
      inside.collect(std::span<const CompactKey>(part.keys[open[s]]), place.part, found, [&](CompactKey key) { return key - low < width; });
    }
    search.low = widen(nth_largest(std::move(found), place.place));
    search.stage = Search::kFound;
    confirmed[s] = 1;
  });
  for (std::size_t s = 0; s < open.size(); ++s) store(searches[s], decisions, open[s]);
  return std::all_of(confirmed.begin(), confirmed.end(), [](char is_confirmed) { return is_confirmed != 0; });
}

void MagnitudeSelection::drop(const Decisions& decisions, std::size_t search, const Doubts& doubts, std::size_t first, std::size_t count,
                              float* target) const {
  const float* values = doubts.inputs[static_cast<std::size_t>(inputs_[search])].data() + first;
  const Search found = load(decisions, search);
  if (found.stage == Search::kAll) {
    std::copy_n(values, count, target);
    return;
  }
  const float* base = doubts.inputs[static_cast<std::size_t>(task_.base_index)].data() + first;
  const std::vector<CompactKey>& keys = doubts.keys[search];
  const CompactKey low = narrow(found.low);
  for (std::size_t i = 0; i < count; ++i) {
    // Without a branch: whether a doubt stays is a coin's toss.
    const std::uint32_t mask = keys[first + i] >= low ? ~std::uint32_t{0} : 0;
    target[i] = std::bit_cast<float>((std::bit_cast<std::uint32_t>(values[i]) & mask) | (std::bit_cast<std::uint32_t>(base[i]) & ~mask));
  }
}

}  // namespace moeweld::merge
