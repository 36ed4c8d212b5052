#include <algorithm>
#include <bit>
#include <limits>

#include "merge/kernels/select_keys.h"
#include "merge/magnitude_search.h"
#include "merge/magnitude_selection.h"
#include "merge/nth_largest.h"

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
#pragma omp parallel for schedule(static, 1)
  for (std::size_t s = 0; s < open.size(); ++s) {
    const auto input = static_cast<std::size_t>(inputs_[open[s]]);
    const std::uint32_t factor = input_factor(task_.tensor_key, inputs_[open[s]]);
    std::vector<std::uint32_t> magnitudes(chunk_elements);
    std::vector<CompactKey> keys;
    keys.reserve(sample.size() * chunk_elements);
    for (const Elements& chunk : sample) {
      magnitude_keys_bf16(reinterpret_cast<const std::uint16_t*>(chunk.inputs[input]),
                          reinterpret_cast<const std::uint16_t*>(chunk.inputs[static_cast<std::size_t>(task_.base_index)]), chunk_elements,
                          magnitudes.data());
      for (std::size_t i = 0; i < chunk_elements; ++i)
        keys.push_back(compact_key(magnitudes[i], hash_index(salt, factor, chunk.first_element + i)));
    }
    guess_bracket(std::span<const CompactKey>(keys), chunk_elements, task_.elements(), narrow(end_of_keys(task_)), searches[s]);
  }
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

bool MagnitudeSelection::settle(std::span<const Doubts> parts, Decisions& decisions) const {
  const std::vector<std::size_t> open = open_searches(decisions);
  const std::uint32_t salt = index_salt(task_.tensor_key, 0);
  std::vector<char> confirmed(open.size(), 0);
  std::size_t num_doubts = 0;
  for (const Doubts& part : parts) num_doubts += part.elements.size();
  std::vector<Search> searches;
  for (const std::size_t index : open) searches.push_back(load(decisions, index));
#pragma omp parallel for schedule(static, 1)
  for (std::size_t s = 0; s < open.size(); ++s) {
    Search& search = searches[s];
    const auto input = static_cast<std::size_t>(inputs_[open[s]]);
    const std::uint32_t factor = input_factor(task_.tensor_key, inputs_[open[s]]);
    const CompactKey low = narrow(search.low);
    const CompactKey width = narrow(search.high) - low;
    std::vector<CompactKey> keys(num_doubts);
    std::size_t num_keys = 0;
    std::uint64_t above = 0;
    for (const Doubts& part : parts) {
      if (part.counts.empty()) continue;
      above += part.counts[open[s]];
      const float* values = part.inputs[input].data();
      const float* base = part.inputs[static_cast<std::size_t>(task_.base_index)].data();
      for (std::size_t k = 0; k < part.elements.size(); ++k) {
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(values[k] - base[k]) & 0x7FFFFFFFu;
        const CompactKey key = compact_key(magnitude, hash_index(salt, factor, part.elements[k]));
        keys[num_keys] = key;
        num_keys += key - low < width ? 1 : 0;  // without a branch: half of the doubts are the other term's
      }
    }
    if (!confirm(above, num_keys, task_.elements(), end_of_keys(task_), search)) continue;
    search.low = widen(nth_largest(std::span(keys).first(num_keys), search.left - 1));
    search.stage = Search::kFound;
    confirmed[s] = 1;
  }
  for (std::size_t s = 0; s < open.size(); ++s) store(searches[s], decisions, open[s]);
  return std::all_of(confirmed.begin(), confirmed.end(), [](char is_confirmed) { return is_confirmed != 0; });
}

void MagnitudeSelection::drop(const Decisions& decisions, std::size_t search, std::span<const std::uint64_t> elements,
                              std::span<const float> values, std::span<const float> base, std::span<float> target) const {
  const KeepRule bound = rule(decisions, search, 0);
  const std::uint32_t salt = index_salt(task_.tensor_key, 0);
  const CompactKey low = compact_key(static_cast<std::uint32_t>(bound.magnitude), bound.hash);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(values[i] - base[i]) & 0x7FFFFFFFu;
    const bool stays = compact_key(magnitude, hash_index(salt, bound.factor, elements[i])) >= low;
    // Without a branch: whether a doubt stays is a coin's toss.
    const std::uint32_t mask = stays ? ~std::uint32_t{0} : 0;
    target[i] = std::bit_cast<float>((std::bit_cast<std::uint32_t>(values[i]) & mask) | (std::bit_cast<std::uint32_t>(base[i]) & ~mask));
  }
}

}  // namespace moeweld::merge
