#include <algorithm>
#include <array>
#include <cstring>

#include "merge/kernels/convert.h"
#include "merge/methods/rows.h"
#include "merge/methods/ties_parts.h"
#include "merge/tiles.h"

namespace moeweld::merge::ties {

namespace {

/// Elements of one call of the kernel: its lists stay in the first-level cache.
constexpr std::size_t kTileOfDoubts = 2048;

std::uint64_t sample_elements(const Task& task) {
  const std::vector<int> inputs = task_vectors(task);
  // Rescaling needs sums under the final mask. A density of 0 drops NaN too, whose order this kernel does not know.
  const std::vector<double> densities = model_parameters(task, kDensity);
  const bool some_kept = std::all_of(densities.begin(), densities.end(), [](double density) { return density > 0; });
  const bool suited = task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16) && !inputs.empty() &&
                      inputs.size() <= kMostTermsBetween && task.parameters[kRescale] == 0.0 && some_kept;
  if (!suited) return 0;
  const MagnitudeSelection selection(task, inputs);
  return selection.next_phase(started(task, {})) ? selection.sample_elements() : 0;
}

bool guess(const Task& task, std::span<const Elements> sample, Decisions& decisions) {
  decisions = started(task, {});
  return MagnitudeSelection(task, task_vectors(task)).guess(sample, decisions);
}

/// The kernel's lists for one tile, and how they join the task's.
class TileDoubts {
 public:
  TileDoubts(const Task& task, const std::vector<int>& terms) : task_(task), terms_(terms), places_(kTileOfDoubts + kDoubtSlack) {
    values_.assign(terms.size() + 1, std::vector<float>(kTileOfDoubts + kDoubtSlack));
  }

  ElectionDoubts fresh() {
    ElectionDoubts lists;
    lists.places = places_.data();
    for (std::size_t k = 0; k < terms_.size(); ++k) lists.terms[k] = values_[k].data();
    lists.base = values_.back().data();
    return lists;
  }

  /// Padding from `valid` on is zero in all inputs: it may lie in a bracket, but no guess is above it.
  void join(const ElectionDoubts& lists, std::uint64_t first_element, std::size_t valid, Doubts& doubts) const {
    for (std::size_t k = 0; k < terms_.size(); ++k) doubts.counts[k] += lists.above[k];
    std::size_t num = lists.num;
    while (num != 0 && places_[num - 1] >= valid) --num;
    for (std::size_t i = 0; i < num; ++i) doubts.elements.push_back(first_element + places_[i]);
    const auto append = [&](int input, const std::vector<float>& values) {
      std::vector<float>& list = doubts.inputs[static_cast<std::size_t>(input)];
      list.insert(list.end(), values.begin(), values.begin() + static_cast<std::ptrdiff_t>(num));
    };
    for (std::size_t k = 0; k < terms_.size(); ++k) append(terms_[k], values_[k]);
    append(task_.base_index, values_.back());
  }

 private:
  const Task& task_;
  const std::vector<int>& terms_;
  std::vector<std::uint32_t> places_;
  std::vector<std::vector<float>> values_;  // terms, then the base
};

void apply_guess(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output, Doubts& doubts) {
  Election<float> election(task, decisions);
  const MagnitudeSelection selection(task, election.inputs);
  doubts.counts.resize(election.inputs.size());
  doubts.inputs.resize(task.inputs.size());
  TileDoubts tile_doubts(task, election.inputs);
  for_runs_of_rules(task, elements, output, [&](const Elements& run, std::byte* target) {
    std::vector<KeepRule> above;
    std::vector<KeepRule> within;
    for (std::size_t i = 0; i < election.inputs.size(); ++i) {
      above.push_back(selection.rule_above(decisions, i, run.first_element));
      within.push_back(selection.rule(decisions, i, run.first_element));
    }
    election.kernel.rules = above;
    election.kernel.index_salt = index_salt(task.tensor_key, run.first_element);
    for_padded(task, run, target, sizeof(std::uint16_t), [&](const Elements& part, std::size_t valid, std::byte* part_target) {
      std::vector<const std::byte*> pointers(part.inputs.begin(), part.inputs.end());
      for (std::size_t offset = 0; offset < part.num_elements; offset += kTileOfDoubts) {
        const std::size_t num = std::min<std::size_t>(kTileOfDoubts, part.num_elements - offset);
        election.point_to(task, pointers);
        election.kernel.first_low = static_cast<std::uint32_t>(part.first_element + offset);
        ElectionDoubts lists = tile_doubts.fresh();
        elect_between_bf16(election.kernel, within, num, reinterpret_cast<std::uint16_t*>(part_target) + offset, lists);
        tile_doubts.join(lists, part.first_element + offset, valid - offset, doubts);
        for (const std::byte*& pointer : pointers) pointer += num * sizeof(std::uint16_t);
      }
    });
  });
}

bool settle(const Task& task, std::span<const Doubts> doubts, Decisions& decisions) {
  return MagnitudeSelection(task, task_vectors(task)).settle(doubts, decisions);
}

/// A term that goes is given the base's value: its task vector is zero then, as where a rule drops it.
void mend(const Task& task, const Decisions& decisions, const Doubts& doubts, std::size_t first, std::size_t count, std::byte* results) {
  Election<float> election(task, decisions);
  const MagnitudeSelection selection(task, election.inputs);
  const std::vector<KeepRule> keep_all(election.inputs.size());
  election.kernel.rules = keep_all;
  std::vector<std::array<float, kTileElements>> tiles(task.inputs.size(), std::array<float, kTileElements>{});
  std::vector<const void*> pointers;
  for (const auto& tile : tiles) pointers.push_back(tile.data());
  std::array<float, kTileElements> elected;
  std::array<std::uint16_t, kTileElements> encoded;
  const auto base_index = static_cast<std::size_t>(task.base_index);
  for (std::size_t done = 0; done < count; done += kTileElements) {
    const std::size_t num = std::min(kTileElements, count - done);
    const auto part = [&](const auto& list) { return std::span(list).subspan(first + done, num); };
    const std::span<const float> base = part(doubts.inputs[base_index]);
    std::copy(base.begin(), base.end(), tiles[base_index].begin());
    for (std::size_t k = 0; k < election.inputs.size(); ++k) {
      const auto input = static_cast<std::size_t>(election.inputs[k]);
      selection.drop(decisions, k, part(doubts.elements), part(doubts.inputs[input]), base, tiles[input]);
    }
    election.point_to(task, pointers);
    elect_signs(election.kernel, kTileElements, elected.data());
    encode(DType::kBF16, elected.data(), kTileElements, NanPolicy::kCanonical, encoded.data());
    std::memcpy(results + done * sizeof(std::uint16_t), encoded.data(), num * sizeof(std::uint16_t));
  }
}

}  // namespace

const Speculation kSpeculation{.sample_elements = sample_elements, .guess = guess, .apply = apply_guess, .settle = settle, .mend = mend};

}  // namespace moeweld::merge::ties
